"""Flags that several commands share."""

from __future__ import annotations

import argparse

from phi3_core.models import DEFAULT

from . import configured

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def pair(text: str) -> tuple[str, str]:
    """Parse ``KEY=VALUE``; the value may be empty."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    return key, value


def count(given: str) -> int:
    """Parse a number from 1 on."""
    try:
        number = int(given)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {given!r}")
    return number


def text(given: str) -> str:
    """Return text that the model is to read; bytes of an argument that are not text cannot be encoded."""
    from phi3_core.textfiles import lone_surrogate

    if (half := lone_surrogate(given)) is not None:
        raise argparse.ArgumentTypeError(f"the text is not valid Unicode: it has {half}")
    return given


def finish(
    command: argparse.ArgumentParser, call: Callable[[argparse.Namespace], int], *, json: str = "", quiet: bool = True
) -> None:
    """Add the flags that end every command, and set the function that runs it.

    Args:
        command: the command's parser.
        call: runs the command and returns its exit code.
        json: the help text of ``--json``; empty to leave the flag out.
        quiet: whether to add ``--quiet``.
    """
    if json:
        command.add_argument("--json", action="store_true", help=json)
    if quiet:
        add_quiet(command)
    command.add_argument("--traceback", action="store_true", help="show where an error came from")
    command.set_defaults(call=call)


def add_model(command: argparse.ArgumentParser) -> None:
    """Add ``--model`` and ``--offline``."""
    command.add_argument(
        "-m",
        "--model",
        help=f"a name (phi3 models list), a hub repository, a model folder, or a GGUF file [{DEFAULT}]",
    )
    configured.mark(command, "model")
    add_offline(command)


def add_device(command: argparse.ArgumentParser, *, preferred: bool = True) -> None:
    """Add ``--device``, ``--precision``, ``--policy`` and ``--refresh``.

    Args:
        command: the parser.
        preferred: whether the configuration's device and precision take the place of flags that are not given.
    """
    group = command.add_argument_group("where it runs")
    group.add_argument("-d", "--device", help="auto, a backend, a kind (cpu, gpu, dgpu, npu), or BACKEND:DEVICE [auto]")
    group.add_argument(
        "-p", "--precision", choices=("fp16", "int8", "int4"), help="[the backend's preferred one that is available]"
    )
    if preferred:
        configured.mark(group, "device", "precision")
    else:
        group.set_defaults(device="auto")
    add_policy(group)
    add_refresh(group)


def add_refresh(group: Any) -> None:
    """Add ``--refresh``."""
    group.add_argument("--refresh", action="store_true", help="ask the backends again, ignoring cached answers")


def add_offline(command: argparse.ArgumentParser) -> None:
    """Add ``--offline``."""
    add_switch(command, "--offline", help="use only files on this machine")


def add_switch(container: Any, *names: str, help: str) -> None:  # noqa: A002 - argparse's word
    """Add a flag that the configuration may turn on, with the one that turns it off again."""
    action = container.add_argument(*names, action=argparse.BooleanOptionalAction, help=help)
    configured.mark(container, action.dest)


def add_policy(group: Any) -> None:
    """Add ``--policy``."""
    group.add_argument("--policy", choices=("auto", "performance", "efficiency"), help="how to choose [auto]")
    configured.mark(group, "policy")


def add_engine(command: argparse.ArgumentParser) -> None:
    """Add ``--option``."""
    command.add_argument(
        "--option",
        metavar="KEY=VALUE",
        type=pair,
        action="append",
        default=[],
        help="an option of the runtime, passed to the engine, e.g. PERFORMANCE_HINT=LATENCY",
    )


def add_check(command: argparse.ArgumentParser) -> None:
    """Add ``--no-check``."""
    command.add_argument(
        "--no-check",
        dest="check",
        action="store_false",
        help="use a device without comparing its answers with known ones the first time",
    )


def add_server(command: argparse.ArgumentParser) -> None:
    """Add ``--no-server``."""
    command.add_argument(
        "--no-server",
        dest="server",
        action="store_false",
        help="load the model here, also if a running phi3 serve has it",
    )


def add_answering(command: argparse.ArgumentParser) -> None:
    """Add the flags of commands that answer: the model, where and how it runs, and how it generates."""
    add_model(command)
    add_device(command)
    add_engine(command)
    add_check(command)
    add_server(command)
    add_generation(command)


def add_generation(command: argparse.ArgumentParser, *, texts: bool = True) -> None:
    """Add the flags of a generation, such as ``--temperature``.

    Args:
        command: the command's parser.
        texts: whether to add those that are text: ``--system`` and ``--stop``.
    """
    group = command.add_argument_group("how it answers")
    if texts:
        group.add_argument("--system", metavar="TEXT", type=text, help="the system message")
    group.add_argument("--max-new-tokens", metavar="N", type=int, help="at most this many tokens [1024]")
    group.add_argument("--temperature", metavar="T", type=float, help="0 is greedy and repeatable [0]")
    group.add_argument("--top-k", metavar="K", type=int, help="keep the K likeliest tokens")
    group.add_argument("--top-p", metavar="P", type=float, help="keep the likeliest tokens up to probability P")
    group.add_argument("--repetition-penalty", metavar="R", type=float, help="over 1 discourages repeating")
    group.add_argument("--seed", metavar="N", type=int, help="makes sampling repeatable")
    group.add_argument(
        "--lookup",
        choices=("auto", "on", "off"),
        help="propose tokens from the text itself, faster where the answer quotes [auto]",
    )
    if texts:
        group.add_argument("--stop", metavar="TEXT", type=text, action="append", help="end the answer before this text")
    configured.mark(group, *(name for name in ("system", *_GENERATION) if texts or name not in _TEXTS))


def generation(given: argparse.Namespace) -> Any:
    """Return the :class:`~phi3_core.replies.GenerationOptions` that were given."""
    return {name: value for name in _GENERATION if (value := getattr(given, name, None)) is not None}


_GENERATION = ("max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "seed", "lookup", "stop")
_TEXTS = ("system", "stop")


def add_quiet(command: argparse.ArgumentParser) -> None:
    """Add ``--quiet``."""
    add_switch(command, "-q", "--quiet", help="print only warnings and errors")

"""The argument parser of all commands."""

from __future__ import annotations

import argparse

from phi3_core import __version__

from . import (
    bench,
    chat,
    config,
    devices,
    doctor,
    eval,  # noqa: A004 - as the command
    launch,
    models,
    plugins,
    quantize,
    run,
    serve,
    top,
)

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

EXIT_CODES = """\
exit codes: 0 done, 1 unexpected, 2 usage, 3 no usable device, 4 model cannot be had or is damaged,
5 a backend failed, 130 interrupted"""

_COMMANDS = (run, chat, devices, plugins, models, quantize, eval, bench, serve, launch, doctor, top, config)


class Parser(argparse.ArgumentParser):
    """An argument parser that reports errors in one line."""

    def error(self, message: str) -> NoReturn:
        """Print an error in one line and exit with code 2."""
        self._end(message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments as argparse does, but refuse what a command does not know here, where its flags are known."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            flags = [word for word in unknown if word.startswith("-") and word != "-"]
            self._refuse_flag(flags[0].partition("=")[0]) if flags else self._refuse_words(unknown)
        return found, unknown

    def _refuse_flag(self, flag: str) -> NoReturn:
        from phi3_core.options import closest  # start-up: needed only for mistakes

        known = [name.removeprefix("--") for name in self._option_string_actions if name.startswith("--")]
        meant = closest(flag.removeprefix("--"), known) if flag.startswith("--") else None
        self._end(f"{self._command} has no flag {flag}", f"did you mean --{meant}? " if meant else "")

    def _refuse_words(self, words: Sequence[str]) -> NoReturn:
        has_prompt = any(action.dest == "prompt" for action in self._actions)
        hint = "put a prompt of several words in quotes; " if has_prompt else ""
        self._end(f"{self._command} does not take {' '.join(map(repr, words))}", hint)

    @property
    def _command(self) -> str:
        return self.prog.removeprefix("phi3 ")

    def _end(self, message: str, hint: str = "") -> NoReturn:
        self.exit(2, f"phi3: {message} ({hint}{self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser. Each command's module adds its arguments, and sets ``call`` to the function that runs it."""
    top = Parser(
        prog="phi3",
        description="Run the Phi-3 family of language models on the hardware you have.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"phi3-core {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for command in _COMMANDS:
        command.add(commands)
    return top

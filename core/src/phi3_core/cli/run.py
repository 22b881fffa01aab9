"""``phi3 run``: one answer to stdout."""

from __future__ import annotations

import argparse

from phi3_core.errors import UsageError

from . import options, streams

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from phi3_core.activity.monitor import Monitor
    from phi3_core.activity.values import Activity
    from phi3_core.model import Model
    from phi3_core.remote.model import RemoteModel
    from phi3_core.replies import GenerationSettings, Message, Reply


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "run", help="one answer to stdout", description="Answer one prompt. Text on stdin is added to it."
    )
    prompt_help = "what to ask; - reads all of it from stdin"
    command.add_argument("prompt", metavar="PROMPT", type=options.text, nargs="?", help=prompt_help)
    options.add_answering(command)
    command.add_argument("--json", action="store_true", help="print the answer and its figures as JSON")
    options.add_switch(command, "--stats", help="print the figures to stderr")
    options.finish(command, call)


def call(given: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from phi3_core.values import to_plain

    from . import output
    from .request import open_model

    prompt = _prompt(given.prompt)
    opened, settings = open_model(given, "answer", (given.system or "") + prompt)
    with opened as model:
        system = [{"role": "system", "content": given.system}] if given.system else []
        messages = [*system, {"role": "user", "content": prompt}]
        activity: Activity | None = None
        if given.json or given.stats:
            with watch(model) as monitor:
                reply = _answer(model, messages, settings, shown=not given.json)
            activity = monitor.result
        else:
            reply = _answer(model, messages, settings, shown=True)
        if given.json:
            shown = {name: value for name, value in to_plain(reply).items() if name != "logprobs"}
            output.print_json({**shown, "activity": activity})
        elif not reply.text.endswith("\n"):
            print(flush=True)
        if given.stats:
            streams.tell(f"phi3: {stats(reply, activity)}")
        if (cut := cut_off(reply, model.context_length, "prompt and answer fill")) is not None:
            output.logger.warning("%s", cut)
    return 0


def _answer(
    model: Model | RemoteModel, messages: Sequence[Message], settings: GenerationSettings, *, shown: bool
) -> Reply:
    """Answer, and print the chunks as they arrive if they are to be shown."""
    with model.answer(messages, settings) as stream:
        for chunk in stream:
            if shown:
                print(chunk, end="", flush=True)
    return stream.reply


def watch(model: Model | RemoteModel, show: Callable[[Activity], object] | None = None) -> Monitor:
    """Return what measures a model's engine in a ``with`` statement, and tells ``show`` each second."""
    from phi3_core.activity.monitor import Monitor

    return Monitor(lambda: model.process, show)


def _prompt(given: str | None) -> str:
    """Return the prompt of the command line, followed by the text on stdin."""
    from . import output

    text = "" if given in (None, "-") else str(given)
    added = streams.read_input(output.logger.warning, needed=not text.strip()).strip("\n")
    if text and added.strip():
        output.logger.info("added %d characters from stdin to the prompt", len(added))
    prompt = "\n\n".join(part for part in (text, added) if part.strip())
    if not prompt:
        raise UsageError("the prompt is empty", hint='phi3 run "What is the capital of France?"')
    return prompt


def stats(reply: Reply, activity: Activity | None) -> str:
    """Return the statistics of a reply, and what processors did meanwhile, in one line."""
    from .activity import words

    parts = []
    if reply.time_to_first_token_s is not None:
        parts.append(f"first token {reply.time_to_first_token_s:.2f} s")
    if reply.decode_tokens_per_s is not None:
        parts.append(f"{reply.decode_tokens_per_s:.1f} tokens/s")
    parts.append(f"{reply.prompt_tokens} + {reply.completion_tokens} tokens")
    parts.append(f"{reply.precision} on {reply.device}")
    if activity is not None:
        parts += words(activity)
    return ", ".join(parts)


def cut_off(reply: Reply, context: int, filling: str) -> str | None:
    """Return why an answer was cut off, in one line, or None if it ended by itself.

    Args:
        reply: the answer.
        context: maximum number of tokens of prompt and answer together.
        filling: what fills the context, with its verb.
    """
    if reply.finish_reason != "length":
        return None
    if reply.prompt_tokens + reply.completion_tokens < context:
        return "the answer was cut off; --max-new-tokens allows longer ones"
    return f"the answer was cut off: {filling} the context of {context} tokens"

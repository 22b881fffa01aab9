"""``phi3 chat``: a conversation with history."""

from __future__ import annotations

import argparse
import contextlib
import sys
from functools import partial

from phi3_core.errors import Phi3Error, PromptTooLongError, UsageError

from . import options, streams

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Any

    from phi3_core.activity.monitor import Monitor
    from phi3_core.activity.values import Activity
    from phi3_core.model import Model
    from phi3_core.remote.model import RemoteModel
    from phi3_core.replies import GenerationSettings, Message, Reply

    from .live import LiveLine

HELP = """\
/help            this list
/reset           forget the conversation
/system [TEXT]   set the system message and reset the conversation; without TEXT show it
/save FILE       write the conversation to FILE as JSON
/quit            leave; Ctrl-D does the same
Ctrl-C           stop the answer"""

_ANSWER_SHARE = 4
"""``--drop-oldest`` leaves up to a fourth of the context for the answer."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "chat",
        help="a conversation with history",
        description=f"Talk with a model.\n\n{HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_answering(command)
    options.add_switch(
        command,
        "--drop-oldest",
        help="let the model forget the oldest messages when the conversation no longer fits its context",
    )
    options.add_switch(command, "--stats", help="print each answer's figures to stderr")
    options.finish(command, call)


def call(given: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from .request import open_model
    from .streams import input_lines

    read = _terminal_reader() if sys.stdin.isatty() else partial(next, input_lines(), None)
    opened, settings = open_model(given, "conversation")
    with opened as model:
        Conversation(model, settings, given).run(read)
    return 0


class Conversation:
    """A conversation and its history, with commands such as ``/save``."""

    def __init__(self, model: Model | RemoteModel, settings: GenerationSettings, given: argparse.Namespace) -> None:
        self._model = model
        self._settings = settings
        self._given = given
        self._system: str | None = given.system
        self._said: list[Message] = []
        self._dropped = 0
        """The number of messages that the model no longer reads."""
        self._saved: set[Path] = set()

    def run(self, read: Callable[[], str | None]) -> None:
        """Answer the lines that ``read`` returns, until it returns None or the user quits."""
        while (line := read()) is not None:
            text = line.strip()
            if text in {"/quit", "/exit"}:
                return
            try:
                if text.startswith("/"):
                    self._command(text)
                elif text:
                    self._answer(text)
            except Phi3Error as error:
                from . import output

                output.print_error(error, traceback=self._given.traceback)
                if not isinstance(error, UsageError):
                    raise

    def _command(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word == "/help":
            _tell(HELP)
        elif word == "/reset":
            self._reset()
            _tell("the conversation is forgotten")
        elif word == "/system":
            if rest:
                self._system = rest
                self._reset()
            _tell(f"system: {self._system}" if self._system else "there is no system message")
        elif word == "/save":
            self._save(rest)
        else:
            raise UsageError(f"unknown command {word}", hint="/help lists the commands")

    def _reset(self) -> None:
        self._said.clear()
        self._dropped = 0

    def _save(self, name: str) -> None:
        import json

        from phi3_core.disk import raise_if_full, reason
        from phi3_core.paths import absolute

        if not name:
            raise UsageError("/save needs a file's name", hint="/save talk.json")
        path = absolute(name)
        text = json.dumps({"model": self._model.name, "messages": self._messages()}, indent=2, ensure_ascii=False)
        try:
            if path.exists() and path not in self._saved:
                raise UsageError(f"{path} exists already", hint="choose another name")
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise_if_full(error, path, hint="/save FILE names another place")
            raise UsageError(f"{path} cannot be written: {reason(error)}", hint="choose another place") from error
        except ValueError as error:  # such as a null character
            raise UsageError(f"{name!r} cannot be the name of a file: {error}", hint="choose another name") from error
        self._saved.add(path)
        _tell(f"saved to {path}")

    def _messages(self, start: int = 0) -> list[Message]:
        return [*([{"role": "system", "content": self._system}] if self._system else []), *self._said[start:]]

    def _prompt(self, question: Message) -> list[Message]:
        """Return the messages that the model reads: all of them, or without the oldest if they may be dropped."""
        if self._given.drop_oldest:
            self._drop_oldest(question)
        return [*self._messages(self._dropped), question]

    def _drop_oldest(self, question: Message) -> None:
        """Drop the oldest messages if the conversation leaves too little room for an answer.

        What is read anew takes time, so half of the context is cleared at once.
        """
        context = self._model.context_length
        answer = min(self._settings.max_new_tokens, context // _ANSWER_SHARE)
        if self._model.fits([*self._messages(self._dropped), question], answer_tokens=answer):
            return
        for start in range(self._dropped + 2, len(self._said) + 1, 2):  # a question and its answer
            is_last = start == len(self._said) - 2
            wanted = answer if is_last else context // 2
            if self._model.fits([*self._messages(start), question], answer_tokens=wanted):
                break
        else:
            start = len(self._said)
            if not self._model.fits([*self._messages(start), question]):
                return  # nothing is gained by dropping
        if start > self._dropped:
            _tell(f"the model forgets the oldest {start - self._dropped} messages: its context holds {context} tokens")
            self._dropped = start

    def _too_long(self, error: PromptTooLongError, question: Message) -> PromptTooLongError:
        """Return the error with a hint that helps in a conversation."""
        alone = [*self._messages(len(self._said)), question]
        if self._said and self._model.fits(alone):
            hint = "/reset forgets the conversation, and phi3 chat --drop-oldest its oldest messages"
        else:
            hint = "shorten the message or the system message" if self._system else "shorten the message"
        return PromptTooLongError(error.message, hint=hint)

    def _answer(self, text: str) -> None:
        from .live import LiveLine

        question: Message = {"role": "user", "content": text}
        chunks: list[str] = []
        try:
            prompt = self._prompt(question)
            with (
                LiveLine(wanted=not self._given.quiet) as line,
                self._watched(line) as monitor,
                self._model.answer(prompt, self._settings) as stream,
            ):
                for chunk in stream:
                    chunks.append(chunk)
                    print(chunk, end="", flush=True)
            print(flush=True)
            self._figures(stream.reply, None if monitor is None else monitor.result)
        except PromptTooLongError as error:
            raise self._too_long(error, question) from error
        except KeyboardInterrupt:
            print(flush=True)
            _tell("stopped")
        if chunks:  # a message without an answer is not added to the history
            self._said += [question, {"role": "assistant", "content": "".join(chunks)}]

    def _watched(self, line: LiveLine) -> AbstractContextManager[Monitor | None]:
        """Return what measures the engine, if somebody is shown what it finds."""
        from .run import watch

        if line.shown:
            return watch(self._model, line.show)
        return watch(self._model) if self._given.stats else contextlib.nullcontext()

    def _figures(self, reply: Reply, activity: Activity | None) -> None:
        from .run import cut_off, stats

        if self._given.stats:
            _tell(stats(reply, activity))
        context = self._model.context_length
        if (cut := cut_off(reply, context, "the conversation fills")) is None:
            return
        if reply.prompt_tokens + reply.completion_tokens >= context and not self._given.drop_oldest:
            cut += "; /reset forgets it, and phi3 chat --drop-oldest its oldest messages"
        _tell(cut)


def _tell(text: str) -> None:
    streams.tell(text)


def _terminal_reader() -> Callable[[], str | None]:
    """Return a function that reads a line with editing and history; Ctrl-C discards the line, Ctrl-D returns None."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter

    words = WordCompleter(["/help", "/reset", "/system", "/save", "/quit"], sentence=True)
    session: PromptSession[str] = PromptSession(completer=words, complete_while_typing=False)

    def read() -> str | None:
        while True:
            try:
                return session.prompt("> ")
            except KeyboardInterrupt:
                continue
            except EOFError:
                return None

    return read

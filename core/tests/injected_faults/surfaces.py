"""The surfaces by which users meet a fault: each asks one question, and tells what came of it."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import phi3_core as phi3
import pytest
from attrs import evolve, frozen
from phi3_core.store import manifest
from phi3_core.store.store import Store

from . import PROMPT

Main = Callable[..., tuple[int, str, str]]
"""Runs a command in this process, and returns its exit code, stdout and stderr."""
_EXIT_CODES = {"engine_failed": 5, "model_unavailable": 3}
"""The exit codes of commands for what a server says."""
_STATS = re.compile(r"first token .*, fp16 on ([^\s,]+)(, CPU .*)?$")


@frozen(kw_only=True)
class Question:
    """What is asked."""

    source: Path
    """The original weights."""
    device: str
    max_new_tokens: int


@frozen(kw_only=True)
class Outcome:
    """What came of a question."""

    code: int
    """The exit code, of a command or of the exception."""
    text: str
    """The answer, or what there was of it when it failed."""
    said: tuple[str, ...]
    """The warnings and the error, a line each."""
    device: str = ""
    """Where the answer ended."""
    seconds: float = 0.0


Surface = Callable[[Question, Main], Outcome]


@contextlib.contextmanager
def warnings_of_core() -> Iterator[list[str]]:
    """Provide a list of the warnings that core logs meanwhile."""
    said: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, handler = logging.getLogger("phi3_core"), Handler(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def by_api(question: Question, main: Main) -> Outcome:
    """Ask from Python."""
    text = ""
    with warnings_of_core() as said:
        try:
            with (
                phi3.load(str(question.source), device=question.device, purpose="answer") as model,
                model.stream(PROMPT, max_new_tokens=question.max_new_tokens) as stream,
            ):
                for chunk in stream:
                    text += chunk
                device = stream.reply.device
        except phi3.Phi3Error as error:
            return Outcome(code=error.exit_code, text=text, said=(*said, str(error)))
    return Outcome(code=0, text=text, said=tuple(said), device=device)


def by_command(question: Question, main: Main) -> Outcome:
    """Ask with ``phi3 run``."""
    asked = ("--model", question.source, "--device", question.device, "--max-new-tokens", question.max_new_tokens)
    code, out, err = main("run", "--quiet", "--stats", *asked, PROMPT)
    lines = [line.removeprefix("phi3: ") for line in err.splitlines()]
    # What a process that died has printed follows the error.
    said = [line for line in lines if not line.startswith("  | ") and not _STATS.match(line)]
    devices = [found[1] for line in lines if (found := _STATS.match(line))]
    said = [line for line in said if not line.startswith("the answer was cut off")]
    return Outcome(code=code, text=out.removesuffix("\n"), said=tuple(said), device="".join(devices))


def by_server(question: Question, main: Main) -> Outcome:
    """Ask a server in which the model is loaded, as a stream."""
    pytest.importorskip("fastapi")
    from serving_toy import chat, events, running

    text, device, code = "", "", 0
    body = chat(PROMPT, max_tokens=question.max_new_tokens, stream=True)
    with warnings_of_core() as said:
        try:
            with running(str(question.source), Path(), device=question.device) as server:
                response = server.send("POST", "/v1/chat/completions", body)
                documents = list(events(response)) if response.status == 200 else [json.loads(response.read())]
        except phi3.Phi3Error as error:
            return Outcome(code=error.exit_code, text="", said=(*said, str(error)))
    for document in documents:
        code = _EXIT_CODES[document["error"]["code"]] if "error" in document else code
        for choice in document.get("choices", ()):
            text += choice["delta"].get("content") or ""
        device = document.get("phi3", {}).get("device", device)
    return Outcome(code=code, text=text, said=tuple(said), device=device)


def half_written(home: Path) -> list[str]:
    """Return what of a store is neither whole nor a record."""
    left = [path for path in home.glob("staging/*") if path.suffix != ".lock"]
    left += home.rglob(".*.json.*")  # records are written under such names
    left += [path for path in home.glob("artifacts/*/*") if not (path / manifest.NAME).is_file()]
    left += [entry.path for entry in Store(home).entries() if manifest.damaged(entry.path, entry.manifest)]
    return [str(path.relative_to(home)) for path in left]


SURFACES: dict[str, Surface] = {"api": by_api, "cli": by_command, "server": by_server}


def ask(surface: str, question: Question, main: Main) -> Outcome:
    """Ask a question, and measure how long it takes until the model is closed."""
    started = time.perf_counter()
    outcome = SURFACES[surface](question, main)
    return evolve(outcome, seconds=time.perf_counter() - started)

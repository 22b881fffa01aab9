"""The running engines of a store: a file for each below ``running`` of the store, which its host keeps up to date."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from phi3_core import paths
from phi3_core.units import LAST_MOMENT
from phi3_core.values import to_plain

from . import records

FORMAT = 1


@frozen(kw_only=True)
class RunningEngine:
    """An engine in its worker process."""

    process: int
    """The id of the worker process."""
    process_started: float = 0.0
    """When it was started, in seconds since the epoch: another process may have its id later."""
    place: str = ""
    """The machine or container whose process ids these are."""
    model: str
    device: str
    """The device as ``backend:device``."""
    kind: str
    """The device's kind."""
    name: str
    """The device's name to display."""
    precision: str
    backend: str
    """The backend's distribution and its version."""
    context_length: int
    max_concurrency: int
    since: float
    """When it was loaded, in seconds since the epoch."""
    state: str = "idle"
    """``idle``, ``reading`` while all of its answers wait for their first token, or ``generating``."""
    running: int = 0
    """Answers that have begun."""
    waiting: int = 0
    """Answers that wait for the engine."""
    answers: int = 0
    """Answers that have ended."""
    tokens: int = 0
    """Tokens of all answers so far."""
    tokens_per_s: float | None = None
    """Of all answers together, lately; None while there is none."""


def folder() -> Path:
    """Return the folder with the files."""
    return paths.home() / "running"


def located(engine: RunningEngine) -> RunningEngine:
    """Return an engine of this machine with its place, and with the start of its process; 0 if that has ended."""
    return evolve(engine, place=records.place(), process_started=records.start_of(engine.process) or 0.0)


def write(engine: RunningEngine, below: Path) -> None:
    """Write the file of an engine.

    Raises:
        OSError: the store cannot be written.
    """
    paths.write_json(records.file_of(engine, below), {"format": FORMAT, **to_plain(engine)})


def running_engines() -> tuple[RunningEngine, ...]:
    """Return the running engines of this store and machine, the oldest first. Removes files that are left over."""
    return tuple(sorted(records.read_running(folder(), _parse), key=lambda engine: (engine.since, engine.process)))


def _parse(content: Any) -> RunningEngine | None:
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        return None
    facts = {name: value for name, value in content.items() if name != "format"}
    texts = ("place", "model", "device", "kind", "name", "precision", "backend", "state")
    numbers = ("process", "process_started", "since", "context_length", "max_concurrency")
    counts = ("running", "waiting", "answers", "tokens")
    if not all(isinstance(facts.get(name), str) for name in texts):
        return None
    rate = facts.get("tokens_per_s")
    if not all(map(records.is_number, [*map(facts.get, (*numbers, *counts)), *([] if rate is None else [rate])])):
        return None
    if facts["since"] > LAST_MOMENT:
        return None
    try:
        return RunningEngine(**facts)
    except TypeError:  # fields that this version does not know
        return None

"""The running engines of a store: a file for each below ``running`` of the store, which its host keeps up to date.

A file whose process has ended, or whose process id belongs to another process now, is removed by whoever reads it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from phi3_core import files, paths
from phi3_core.values import to_plain

FORMAT = 1
SAME_START_S = 2.0
"""A process's start is computed from the system's, which may be corrected by a clock's adjustment."""
_FOREIGN_S = 30 * 86400
"""After so long, what another machine or container has left in a shared store is removed."""


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


def file_of(engine: RunningEngine, below: Path) -> Path:
    """Return the file of an engine, in the folder with the files."""
    return below / f"{engine.place}-{engine.process}.json"


def located(engine: RunningEngine) -> RunningEngine:
    """Return an engine of this machine with its place, and with the start of its process; 0 if that has ended."""
    return evolve(engine, place=place(), process_started=start_of(engine.process) or 0.0)


def write(engine: RunningEngine, below: Path) -> None:
    """Write the file of an engine.

    Raises:
        OSError: the store cannot be written.
    """
    paths.write_json(file_of(engine, below), {"format": FORMAT, **to_plain(engine)})


def running_engines() -> tuple[RunningEngine, ...]:
    """Return the running engines of this store and machine, the oldest first. Removes files that are left over."""
    return tuple(sorted(_read(), key=lambda engine: (engine.since, engine.process)))


def _read() -> Iterator[RunningEngine]:
    here = place()
    for file in folder().glob("*"):
        engine = _parse(paths.read_json(file)) if file.suffix == ".json" else None
        if engine is None or engine.place != here:
            with contextlib.suppress(OSError):  # another format's or machine's, just being written, or removed by now
                if time.time() - file.stat().st_mtime > _FOREIGN_S:
                    files.unlink(file)
            continue
        start = start_of(engine.process)
        if start is not None and abs(start - engine.process_started) <= SAME_START_S:
            yield engine
        else:
            with contextlib.suppress(OSError):
                files.unlink(file)


def _parse(content: Any) -> RunningEngine | None:
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        return None
    facts = {name: value for name, value in content.items() if name != "format"}
    texts = ("place", "model", "device", "kind", "name", "precision", "backend", "state")
    numbers = ("process", "process_started", "since", "context_length", "max_concurrency")
    counts = ("running", "waiting", "answers", "tokens")
    if not all(isinstance(facts.get(name), str) for name in texts):
        return None
    if not all(type(facts.get(name)) in {int, float} for name in (*numbers, *counts)):
        return None
    try:
        return RunningEngine(**facts)
    except TypeError:  # fields that this version does not know
        return None


def start_of(process: int) -> float | None:
    """Return when a process was started, in seconds since the epoch; None if there is no such process."""
    import psutil  # start-up: needed only in the background, and by `phi3 top`

    try:
        found = psutil.Process(process)
        if found.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(found.create_time())
    except (psutil.Error, OSError, ValueError, TypeError, OverflowError):
        return None


def place() -> str:
    """Return a name for where process ids are unique, this machine or this container, which tells nothing about it."""
    parts = []
    for file in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        with contextlib.suppress(OSError):
            parts.append(Path(file).read_text(encoding="ascii", errors="replace"))
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    if sys.platform == "win32":
        parts.append(os.environ.get("COMPUTERNAME", ""))
    elif not parts:
        parts.append(os.uname().nodename)
    return f"{zlib.crc32(chr(10).join(parts).encode()):08x}"

"""The running servers of a store: a file for each below ``servers`` of the store, which only its user can read."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from phi3_core import files, paths
from phi3_core.activity import records
from phi3_core.values import to_plain

FORMAT = 1
_LAST_PORT = 65535


@frozen(kw_only=True)
class RunningServer:
    """A server that answers on this machine."""

    host: str
    port: int
    token: str = field(repr=False)
    """What it takes for an API key from programs that can read the file."""
    process: int = 0
    process_started: float = 0.0
    """When its process was started, in seconds since the epoch: another process may have its id later."""
    place: str = ""
    """The machine or container whose process ids these are."""

    @property
    def address(self) -> str:
        """Its URL."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def new_token() -> str:
    """Return a token that nobody can guess."""
    return secrets.token_urlsafe(32)


@contextlib.contextmanager
def announced(server: RunningServer) -> Iterator[None]:
    """Tell the programs of the same user of a server of this process. A store that is not writable does without."""
    process = os.getpid()
    told = evolve(server, process=process, process_started=records.start_of(process) or 0.0, place=records.place())
    file = records.file_of(told, folder())
    with contextlib.suppress(OSError):
        _write(file, {"format": FORMAT, **to_plain(told)})
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            files.unlink(file)


def is_any() -> bool:
    """Return whether there may be a running server, which takes next to no time."""
    return any(folder().glob("*.json"))


def running_servers() -> Iterator[RunningServer]:
    """Return the running servers of this store and machine. Removes files that are left over."""
    return records.read_running(folder(), _parse)


def folder() -> Path:
    """Return the folder with the files."""
    return paths.home() / "servers"


def _write(file: Path, content: Any) -> None:
    """Write a file that only this user can read, since it has a token."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:  # noqa: PTH123
        json.dump(content, stream)
    files.replace_path(new, file)


def _parse(content: Any) -> RunningServer | None:
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        return None
    facts = {name: value for name, value in content.items() if name != "format"}
    kinds = {"host": str, "port": int, "token": str, "process": int, "place": str}
    if not all(type(facts.get(name)) is kind for name, kind in kinds.items()):
        return None
    if not records.is_number(facts.get("process_started")) or not 0 < facts["port"] <= _LAST_PORT:
        return None
    try:
        return RunningServer(**facts)
    except TypeError:  # fields that this version does not know
        return None

"""Files that running processes leave in the store, one each, for other programs to find them.

A file whose process has ended, or whose process id belongs to another process now, is removed by whoever reads it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from phi3_core import files, paths

_SAME_START_S = 2.0
"""A process's start is computed from the system's, which may be corrected by a clock's adjustment."""
_FOREIGN_S = 30 * 86400
"""After so long, what another machine or container has left in a shared store is removed."""


class Record(Protocol):
    """What a file says of its process."""

    @property
    def process(self) -> int:
        """The id of the process."""

    @property
    def process_started(self) -> float:
        """When it was started, in seconds since the epoch: another process may have its id later."""

    @property
    def place(self) -> str:
        """The machine or container whose process ids these are."""


_LARGEST = 2**53
"""What no count and no time of a record exceeds. JSON has larger ones, which are no float."""


R = TypeVar("R", bound=Record)


def file_of(record: Record, folder: Path) -> Path:
    """Return the file of a record, in the folder with the files."""
    return folder / f"{record.place}-{record.process}.json"


def is_number(value: object) -> bool:
    """Return whether a value of a file is a number that a count or a time may have."""
    return (type(value) is int or type(value) is float) and 0 <= value <= _LARGEST


def read_running(folder: Path, parse: Callable[[Any], R | None]) -> Iterator[R]:
    """Yield the records of processes of this machine that still run, and remove the files that are left over.

    Args:
        folder: the folder with the files.
        parse: makes a record of a file's content; None if it is another format's, or damaged.
    """
    here = place()
    for file in folder.glob("*"):
        record = parse(paths.read_json(file)) if file.suffix == ".json" else None
        if record is None or record.place != here:
            with contextlib.suppress(OSError):  # another format's or machine's, just being written, or removed by now
                if time.time() - file.stat().st_mtime > _FOREIGN_S:
                    files.unlink(file)
            continue
        start = start_of(record.process)
        if start is not None and abs(start - record.process_started) <= _SAME_START_S:
            yield record
        else:
            with contextlib.suppress(OSError):
                files.unlink(file)


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

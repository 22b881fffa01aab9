"""Locks for writing to the store, and file system errors as errors of the store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from phi3_core.disk import raise_if_full, reason
from phi3_core.errors import StoreError


@contextlib.contextmanager
def locked(folder: Path, waiting: Callable[[str], object]) -> Iterator[None]:
    """Let one process at a time fill ``folder``. ``waiting`` is called with a message if another process does."""
    import filelock  # start-up: needed only for writing

    lock = filelock.FileLock(f"{folder}.lock")
    with store_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            waiting("waiting for another process")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def store_errors(root: Path) -> Iterator[None]:
    """Convert file system errors to :class:`StoreError` or :class:`DiskFullError`."""
    try:
        yield
    except OSError as error:
        raise_if_full(error, root)
        where = error.filename or root
        raise StoreError(
            f"the store {root} cannot be written: {reason(error)}: {where}",
            hint="set PHI3_HOME to a folder you can write to",
        ) from error

"""Locks for writing to the store, and file system errors as errors of the store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from phi3_core import files
from phi3_core.disk import LONG_PATHS_HINT, missing_drive, raise_if_full, reason
from phi3_core.errors import StoreError

IN_USE_HINT = "end the program that uses it, such as another phi3, then run this again"


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
        hint = "set PHI3_HOME to a folder you can write to"
        if files.is_in_use(error):
            raise StoreError(f"{where} is in use by another program", hint=IN_USE_HINT) from error
        if drive := missing_drive(root):
            raise StoreError(f"the store {root} cannot be written: {drive} does not exist", hint=hint) from error
        _raise_if_too_long(error)
        raise StoreError(f"the store {root} cannot be written: {reason(error)}: {where}", hint=hint) from error


def _raise_if_too_long(error: OSError) -> None:
    """Raise :class:`StoreError` if an error means that a path is too long for Windows.

    Windows says of such a path that it is not found, or that it has a syntax error.
    """
    named = [name for name in (error.filename, error.filename2) if isinstance(name, str)]
    if getattr(error, "winerror", None) is None or not named:
        return
    from phi3_core import windows  # start-up: ctypes, needed only on Windows

    longest = max(named, key=len)
    if windows.is_too_long(Path(longest)):
        raise StoreError(
            f"the path {longest} has {len(longest)} characters, and Windows is set to allow {windows.LONGEST_PATH}",
            hint=LONG_PATHS_HINT,
        ) from error

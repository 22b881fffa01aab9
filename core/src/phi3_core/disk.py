"""Free disk space and file system errors. Lack of space is always a :class:`DiskFullError`."""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path

from .errors import DiskFullError, StoreError
from .units import format_bytes

STORE_HINT = "free some space, or set PHI3_HOME to a folder on another disk"
LONG_PATHS_HINT = "set PHI3_HOME to a short path such as C:\\phi3, or let an administrator enable long paths"
_BLOCK = 2**20
_FULL = {errno.ENOSPC, errno.EDQUOT}
_WINDOWS_FULL = {39, 112}  # ERROR_HANDLE_DISK_FULL and ERROR_DISK_FULL


def reason(error: OSError) -> str:
    """Return the system's message for an error, in lower case."""
    return (error.strerror or str(error)).lower()


def is_full(error: OSError) -> bool:
    """Return whether an error means that a disk or a disk quota is full."""
    return error.errno in _FULL or getattr(error, "winerror", None) in _WINDOWS_FULL


def raise_if_full(error: OSError, folder: Path, *, hint: str = STORE_HINT) -> None:
    """Raise :class:`DiskFullError` if ``error`` means that the disk of ``folder`` is full, or allows no larger file."""
    if error.errno == errno.EFBIG:
        message = f"a file is too large for the disk of {folder}, or for a limit on files"
        raise DiskFullError(message, hint=hint) from error
    if is_full(error):
        raise DiskFullError(f"no space is left on the disk of {folder}", hint=hint) from error


def write_problem(folder: Path, size: int) -> str:
    """Return why a file of ``size`` bytes cannot be written to a folder; an empty string if it can.

    Runtimes write files of their own and do not tell why they failed. This writes such a file and removes it.
    """
    block = bytes(min(size, _BLOCK))
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for _ in range(-(-size // _BLOCK)):
                file.write(block)
    except OSError as error:
        return f"no file of {format_bytes(size)} can be written to {folder}: {reason(error)}"
    return ""


def existing_parent(folder: Path) -> Path:
    """Return ``folder`` or its nearest parent that exists; the root at last, which exists unless the drive does not."""
    while not _exists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def missing_drive(folder: Path) -> str:
    """Return the drive or network share of a folder if it does not exist; else an empty string."""
    there = existing_parent(folder)
    return "" if _exists(there) else str(there)


def _exists(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError:  # such as a network share whose password is wrong
        return False


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder, which need not exist yet.

    Raises:
        StoreError: the disk does not exist, or does not say how much of it is free.
    """
    try:
        return shutil.disk_usage(existing_parent(folder)).free
    except OSError as error:
        hint = "set PHI3_HOME to a folder on another disk"
        if drive := missing_drive(folder):
            raise StoreError(f"{drive} does not exist, and {folder} would be on it", hint=hint) from error
        raise StoreError(f"the disk of {folder} does not say how much is free: {reason(error)}", hint=hint) from error


def check_free(folder: Path, needed: float, what: str, *, hint: str = STORE_HINT) -> None:
    """Check that a disk has enough free space.

    Args:
        folder: a folder on the disk; it need not exist yet.
        needed: bytes.
        what: what needs the space, as the subject of the error message.
        hint: the hint of the error.

    Raises:
        DiskFullError: less than ``needed`` is free; the message has both figures.
    """
    free = free_bytes(folder)
    if free < needed:
        raise DiskFullError(
            f"{what} needs {format_bytes(needed)}, and only {format_bytes(free)} are free in {folder}", hint=hint
        )

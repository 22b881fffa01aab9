"""Rename, replace and delete files and folders, also while another program looks at them for a moment.

On Windows a file cannot be renamed or deleted while a program has it open, nor can a folder that contains it. Virus
scanners and the indexer open what was just written, for milliseconds as a rule and for seconds if it is large.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

logger = logging.getLogger("phi3_core")

LIMIT_S = 5.0
"""How long to try."""
PUBLISH_LIMIT_S = 60.0
"""How long to try to rename gigabytes that were just written, which took far longer to make."""
TRASH_LIMIT_S = 0.5
"""How long to try to delete what nobody sees any more, and what is deleted later otherwise."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.5
_SAY_AFTER_S = 2.0
# ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION, ERROR_DIR_NOT_EMPTY: of a folder with a file that
# is deleted as soon as the last program closes it.
_TRANSIENT = {5, 32, 33, 145}
# ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION, ERROR_USER_MAPPED_FILE
_IN_USE = {32, 33, 1224}
_ACCESS_DENIED = 5

T = TypeVar("T")


def retry(action: Callable[[], T], *, limit_s: float | None = None) -> T:
    """Return the result of ``action``, which is called again while Windows says that a file is in use.

    Args:
        action: renames or deletes something, and can be repeated after it failed.
        limit_s: seconds after which the error is raised; :data:`LIMIT_S` by default.

    Raises:
        OSError: the last error; on other systems than Windows, the first one.
    """
    limit_s = LIMIT_S if limit_s is None else limit_s
    started, pause, said = time.monotonic(), _FIRST_PAUSE_S, False
    while True:
        try:
            return action()
        except OSError as error:
            waited = time.monotonic() - started
            if getattr(error, "winerror", None) not in _TRANSIENT or waited + pause > limit_s:
                raise
            if waited > _SAY_AFTER_S and not said:
                said = True
                logger.info("another program uses %s; trying again", error.filename)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def replace_path(source: Path, target: Path, *, limit_s: float | None = None) -> None:
    """Rename a file or folder; an existing file ``target`` is replaced. Raises as :func:`retry`."""
    retry(lambda: source.replace(target), limit_s=limit_s)


def unlink(file: Path) -> None:
    """Delete a file, if it exists. Raises as :func:`retry`."""
    retry(lambda: file.unlink(missing_ok=True))


def remove_tree(folder: Path) -> None:
    """Delete a folder and what it contains, if it exists. Raises as :func:`retry`."""

    def remove() -> None:
        if folder.exists():
            _delete(folder)

    retry(remove)


def discard_tree(folder: Path) -> None:
    """Delete as much of a folder as possible. For what may be left over, because nobody sees it any more."""
    try:
        retry(lambda: _delete(folder), limit_s=TRASH_LIMIT_S)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)


def _delete(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except PermissionError:
        if os.name != "nt":
            raise
        # Windows does not delete read-only files, such as OpenVINO's compiled models.
        for path in folder.rglob("*"):
            path.chmod(stat.S_IWRITE | stat.S_IREAD)
        shutil.rmtree(folder)


def is_in_use(error: OSError) -> bool:
    """Return whether an error means that a program has a file open.

    Windows denies access to a folder that is to be renamed while a file in it is open.
    """
    code = getattr(error, "winerror", None)
    return code in _IN_USE or (code == _ACCESS_DENIED and error.filename2 is not None)


def first_in_use(folder: Path) -> Path | None:
    """Return a file below a folder that a program has open, after waiting for programs that soon close it.

    Always None on other systems than Windows, which rename and delete open files.
    """
    if os.name != "nt" or not folder.exists():
        return None
    from . import windows  # start-up: ctypes, needed only to remove models

    def check() -> None:
        for file in folder.rglob("*"):
            if file.is_file():
                windows.open_exclusively(file)

    try:
        retry(check)
    except OSError as error:
        # Another error, such as that of a file that is just being deleted, is left to the renaming.
        return Path(error.filename) if is_in_use(error) else None
    return None

"""Find what Linux and Wine forgive and Windows refuses: renaming, replacing or removing what a process has open.

An audit hook looks, at that moment, at what this process and its child processes have open or mapped, and at their
current folders. Renamings inside of child processes are not seen. Only Linux shows what is open; on Windows the system
itself refuses.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

# While coverage traces, a thread of CPython before 3.12 may fail to start if another one starts at the same time and
# there is an audit hook: "Cannot install a trace function while another trace function is being installed".
_TRACED = sys.version_info < (3, 12) and threading.gettrace() is not None
SUPPORTED = sys.platform == "linux" and not _TRACED
# Renaming and removing are done for the caller by these.
_HELPERS = ("contextlib", "os", "pathlib", "pathlib._local", "shutil", "tempfile", "phi3_core.files", __name__)
# These have ways of their own on Windows, or pass over what it refuses.
_EXEMPT = ("filelock", "huggingface_hub", "_pytest")


class _Watch:
    """What was found; audit hooks cannot be removed, so there is one, which does nothing without a watch."""

    current: list[str] | None = None
    is_installed = False
    thread = threading.local()


@contextlib.contextmanager
def watching() -> Iterator[list[str]]:
    """Yield the list that findings are added to while the block runs: one sentence each."""
    if SUPPORTED and not _Watch.is_installed:
        sys.addaudithook(_hook)
        _Watch.is_installed = True
    found: list[str] = []
    outer, _Watch.current = _Watch.current, found
    try:
        yield found
    finally:
        _Watch.current = outer


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    found = _Watch.current
    check = _CHECKS.get(event) if found is not None else None
    if check is None or found is None or getattr(_Watch.thread, "is_busy", False):
        return
    _Watch.thread.is_busy = True  # the check opens files itself
    try:
        for path, what in check(arguments):
            caller = _caller()
            if (user := what(path)) and caller.partition(".")[0] not in _EXEMPT:
                found.append(f"{event} of {path} in {caller}, while {user}")
    finally:
        _Watch.thread.is_busy = False


def _rename(arguments: tuple[Any, ...]) -> Iterator[tuple[Path, Any]]:
    source, target, *folders = arguments
    if folders == [-1, -1]:
        yield _path(source), _user
        yield _path(target), _user


def _remove(arguments: tuple[Any, ...]) -> Iterator[tuple[Path, Any]]:
    path, folder = arguments
    if folder == -1:  # else part of a tree, which was looked at as a whole
        yield _path(path), _user


def _remove_folder(arguments: tuple[Any, ...]) -> Iterator[tuple[Path, Any]]:
    path, folder = arguments
    if folder == -1 and os.fspath(path) != getattr(_Watch.thread, "tree", None):
        yield _path(path), _user


def _remove_tree(arguments: tuple[Any, ...]) -> Iterator[tuple[Path, Any]]:
    _Watch.thread.tree = os.fspath(arguments[0])  # which it removes with the folder still open
    yield _path(arguments[0]), _user


def _open(arguments: tuple[Any, ...]) -> Iterator[tuple[Path, Any]]:
    path, _, flags = arguments
    if not isinstance(path, int) and flags & os.O_TRUNC:
        yield _path(path), _mapper


_CHECKS = {
    "os.rename": _rename,
    "os.remove": _remove,
    "os.rmdir": _remove_folder,
    "shutil.rmtree": _remove_tree,
    "open": _open,
}


def _path(given: Any) -> Path:
    """Return the path with its folder resolved, as the system shows it; a link itself is not followed."""
    path = Path(os.fsdecode(given))
    return Path(os.path.realpath(path.parent)) / path.name


def _caller() -> str:
    """Return the module and line that renames or removes, apart from helpers."""
    frame: FrameType | None = sys._getframe(1)
    helper = None
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module == "tempfile" and frame.f_code.co_name == "TemporaryFile":
            return "_pytest"  # a file without a name, where the system has no other way to make one
        helper = helper or frame
        if module not in _HELPERS:
            return f"{module}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


def _user(path: Path) -> str:
    return _looked_up(path, _opened) or _looked_up(path, _current_folder) or _mapper(path)


def _mapper(path: Path) -> str:
    return _looked_up(path, _mapped)


def _looked_up(path: Path, ways: Any) -> str:
    below = f"{path}{os.sep}"
    for process in _family():
        with contextlib.suppress(OSError):  # the process has ended
            for name in ways(process):
                if name == str(path) or name.startswith(below):
                    return f"process {process} has {ways.__name__.strip('_')} {name}"
    return ""


def _opened(process: int) -> Iterator[str]:
    for link in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed in the meantime, such as that of the listing
            yield str(link.readlink())


def _mapped(process: int) -> Iterator[str]:
    with Path(f"/proc/{process}/maps").open(encoding="utf-8", errors="surrogateescape") as lines:
        seen = {fields[5].rstrip("\n") for line in lines if len(fields := line.split(None, 5)) == 6}
    yield from seen


def _current_folder(process: int) -> Iterator[str]:
    yield str(Path(f"/proc/{process}/cwd").readlink())


def _family() -> Iterator[int]:
    """Yield the ids of this process and its children, grandchildren, and so on."""
    waiting = [os.getpid()]
    while waiting:
        process = waiting.pop()
        yield process
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{process}/task").iterdir():
                waiting += map(int, (thread / "children").read_text(encoding="ascii").split())

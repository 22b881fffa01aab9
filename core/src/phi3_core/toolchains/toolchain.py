"""External programs, such as model exporters, in virtual environments that are created once in the store.

::

    PHI3_HOME/toolchains/
        <name>-<digest>/    a virtual environment; complete if it has phi3-toolchain.json, which is written last
        logs/               the output of the latest installations and runs

Environments are created in place, since virtual environments cannot be moved. The user's settings for pip apply:
``PIP_INDEX_URL``, ``PIP_CONSTRAINT``, proxies, ``pip.conf``. If pip has no settings and ``uv`` is on the search path,
uv is used with its own settings: the two do not read each other's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from attrs import field, frozen

from phi3_core import files, paths
from phi3_core.disk import LONG_PATHS_HINT, check_free
from phi3_core.errors import ModelError, StoreError
from phi3_core.store.locking import store_errors
from phi3_core.values import Progress

from . import install, process

MARKER = "phi3-toolchain.json"
_LOGS = 12
_WAIT_S = 5.0
_LONGEST_FOLDER = 34
"""Characters of the longest name of a toolchain's folder."""
_LONGEST_BELOW = 140
"""Characters of the longest path in a toolchain, as measured: a licence file of PyTorch 2.14 for Windows."""
# A progress bar's label and percentage.
_PERCENT = re.compile(r"(?P<what>[A-Z][A-Za-z ]{2,40}?)[^A-Za-z0-9%]+(?P<done>\d{1,3}) ?%")


@frozen(kw_only=True)
class Toolchain:
    """Distributions that are installed into one virtual environment."""

    name: str
    requirements: tuple[str, ...]
    """As for ``pip install``."""
    left_out: tuple[str, ...] = ()
    """Dependencies of the requirements that cause problems; they are uninstalled."""
    size_bytes: int = 0
    """Minimum disk space in bytes, as measured."""

    @property
    def folder(self) -> Path:
        """The folder of the environment; it depends on the requirements, the Python version and the platform."""
        python = str(sys.implementation.cache_tag)
        facts = [*self.requirements, "without", *self.left_out, python, sysconfig.get_platform()]
        digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]
        return _root() / f"{self.name}-{digest}"


@frozen(kw_only=True)
class Tools:
    """An installed toolchain."""

    name: str
    path: Path
    versions: Mapping[str, str] = field(repr=False)
    """Versions of all distributions in it, by name in lower case."""
    size_bytes: int
    used: float
    """Time of the last use, in seconds since the epoch."""

    def run(self, arguments: Sequence[str | Path], *, folder: Path, progress: Progress) -> str:
        """Run the toolchain's Python, and return its output.

        The program is set to offline mode and to send no telemetry, and has no standard input.

        Args:
            arguments: arguments of Python.
            folder: the working directory, which also gets the temporary files.
            progress: called with the percentages of the program's progress bars.

        Raises:
            ModelError: the program failed. The message has the cause, the hint the path of the log.
        """
        scratch = folder / "tmp"
        scratch.mkdir(exist_ok=True)
        environment = {
            **install.environment(),
            **dict.fromkeys(("TMPDIR", "TEMP", "TMP", "XDG_CACHE_HOME", "HF_HOME"), str(scratch)),
            **dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"), "1"),
            **dict.fromkeys(("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "ORT_DISABLE_TELEMETRY"), "1"),
        }
        latest: tuple[str, int | None, int | None] = f"running {self.name}", 0, 100

        def tell(line: str) -> None:
            nonlocal latest
            if found := _PERCENT.search(line):
                latest = f"{self.name}: {found['what'].strip().lower()}", int(found["done"]), 100
            progress(*latest)

        progress(*latest)
        log = _log(self.name, "run")
        command = [install.python(self.path), *install.FLAGS, *arguments]
        outcome = process.run(command, log=log, environment=environment, folder=folder, tell=tell)
        if outcome.code:
            raise ModelError(f"{self.name} failed: {outcome.cause}", hint=f"see {log}")
        return outcome.text


def prepare_toolchain(toolchain: Toolchain, progress: Progress) -> Tools:
    """Return an installed toolchain, and install it if necessary. Locked across processes.

    Raises:
        ModelError: the toolchain cannot be installed. The message has the cause, the hint the path of the log.
        StoreError: the store cannot be written, or its disk has too little space.
    """
    folder = toolchain.folder
    with store_errors(_root()), _alone(folder, toolchain, progress):
        tools = _read(folder)
        if tools is None or not _works(tools):
            tools = _install(toolchain, progress)
        os.utime(folder / MARKER)
    return tools


def path_problem(folder: Path | None = None) -> str:
    """Return why toolchains cannot be installed in the store, if their paths are too long for Windows; else "".

    Args:
        folder: the folder of one toolchain; by default the longest that there can be.
    """
    from phi3_core import windows  # start-up: ctypes, needed only to install

    folder = folder or _root() / ("x" * _LONGEST_FOLDER)
    if not windows.is_too_long(folder, _LONGEST_BELOW):
        return ""
    return (
        f"exporters installed in {_root()} have paths of up to {len(str(folder)) + _LONGEST_BELOW} characters, "
        f"and Windows is set to allow {windows.LONGEST_PATH}"
    )


def installed() -> list[Tools]:
    """Return all complete toolchains."""
    return [tools for folder in sorted(_root().glob("*")) if (tools := _read(folder)) is not None]


def remove() -> list[Tools]:
    """Remove all toolchains and logs, and return those that were complete. A toolchain being installed is kept."""
    removed = []
    with store_errors(_root()):
        for folder in [folder for folder in _root().glob("*-*") if folder.is_dir()]:
            with _lock(folder) as mine:
                if not mine:
                    continue
                tools = _read(folder)
                _discard(folder)
                removed += [tools] if tools else []
        files.discard_tree(_root() / "logs")
    return removed


def _install(toolchain: Toolchain, progress: Progress) -> Tools:
    folder = toolchain.folder
    if folder.exists():  # an interrupted installation, or its base Python was removed
        _discard(folder)
    if problem := path_problem(folder):
        raise StoreError(problem, hint=LONG_PATHS_HINT)
    check_free(_root(), toolchain.size_bytes, toolchain.name)
    log = _log(toolchain.name, "install")
    try:
        versions = install.install(
            toolchain.name, toolchain.requirements, toolchain.left_out, folder=folder, log=log, progress=progress
        )
    except ModelError:
        files.discard_tree(folder)
        raise
    content = {
        "name": toolchain.name,
        "requirements": toolchain.requirements,
        "left_out": toolchain.left_out,
        "versions": versions,
        "size_bytes": sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    paths.write_json(folder / MARKER, content)  # written last: marks the toolchain as complete
    tools = _read(folder)
    if tools is None:
        raise StoreError(f"{folder / MARKER} cannot be read")
    return tools


def _discard(folder: Path) -> None:
    files.unlink(folder / MARKER)  # removed first, so that a partial toolchain is not used
    files.remove_tree(folder)


def _root() -> Path:
    return paths.home() / "toolchains"


def _read(folder: Path) -> Tools | None:
    content: Any = paths.read_json(folder / MARKER)
    try:
        return Tools(
            name=content["name"],
            path=folder,
            versions=content["versions"],
            size_bytes=content["size_bytes"],
            used=(folder / MARKER).stat().st_mtime,
        )
    except (KeyError, TypeError, OSError):  # incomplete, or made by another version
        return None


def _works(tools: Tools) -> bool:
    """Return whether the environment's Python runs; its base Python may have been removed."""
    command = [str(install.python(tools.path)), *install.FLAGS, "-c", ""]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _log(name: str, what: str) -> Path:
    """Return a new path for a program's output, and delete the oldest logs."""
    folder = _root() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob("*.log"), key=lambda file: file.stat().st_mtime)[: -_LOGS + 1]:
        old.unlink(missing_ok=True)
    return folder / f"{name}-{what}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"


@contextlib.contextmanager
def _lock(folder: Path, wait_s: float = 0) -> Iterator[bool]:
    """Acquire the lock of an environment, and yield whether that succeeded within ``wait_s`` seconds."""
    import filelock  # start-up: not needed to list toolchains

    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=wait_s)
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextlib.contextmanager
def _alone(folder: Path, toolchain: Toolchain, progress: Progress) -> Iterator[None]:
    """Let one process at a time create an environment; a waiting process reports that as progress."""
    while True:
        with _lock(folder, _WAIT_S) as mine:
            if mine:
                yield
                return
        progress(f"waiting for another process that installs {toolchain.name}")

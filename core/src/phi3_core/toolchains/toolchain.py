"""Programs of others, such as model exporters, in environments of their own that are made once under the store.

::

    PHI3_HOME/toolchains/
        <name>-<digest>/    a virtual environment; used only if it has its phi3-toolchain.json, which is written last
        logs/               what installing and running printed, the latest of them

An environment is made where it stays, since virtual environments cannot be moved. The user's settings for pip hold:
``PIP_INDEX_URL``, ``PIP_CONSTRAINT``, proxies, ``pip.conf``. Where pip has no settings at all and ``uv`` is on the
search path, uv is used, with uv's own settings: the two do not read each other's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from attrs import field, frozen

from phi3_core import paths
from phi3_core.disk import check_free
from phi3_core.errors import ModelError, StoreError
from phi3_core.store.locking import store_errors
from phi3_core.values import Progress

from . import install, process

MARKER = "phi3-toolchain.json"
_LOGS = 12
_WAIT_S = 5.0
# A percentage as progress bars write it, behind what it is the percentage of.
_PERCENT = re.compile(r"(?P<what>[A-Z][A-Za-z ]{2,40}?)[^A-Za-z0-9%]+(?P<done>\d{1,3}) ?%")


@frozen(kw_only=True)
class Toolchain:
    """What is to be installed together."""

    name: str
    requirements: tuple[str, ...]
    """As for ``pip install``."""
    left_out: tuple[str, ...] = ()
    """Distributions that the requirements bring along and that do harm: they are uninstalled again."""
    size_bytes: int = 0
    """How much room it takes on the disk at least, as measured."""

    @property
    def folder(self) -> Path:
        """Where it is, or would be. Another Python, platform or list of requirements has another folder."""
        python = str(sys.implementation.cache_tag)
        facts = [*self.requirements, "without", *self.left_out, python, sysconfig.get_platform()]
        digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]
        return _root() / f"{self.name}-{digest}"


@frozen(kw_only=True)
class Tools:
    """A toolchain that is installed."""

    name: str
    path: Path
    versions: Mapping[str, str] = field(repr=False)
    """Of every distribution in it, by its name in lower case."""
    size_bytes: int
    used: float
    """When it was last used, in seconds since the epoch."""

    def run(self, arguments: Sequence[str | Path], *, folder: Path, progress: Progress) -> str:
        """Run the toolchain's Python with ``arguments`` in ``folder``, where its temporary files go too.

        The program is kept from using a model hub, sends no statistics, and can ask nothing. Its progress bars become
        stages of ``progress``. Returns what it printed.

        Raises:
            ModelError: it failed; the message has its telling line, the hint its log.
        """
        scratch = folder / "tmp"
        scratch.mkdir(exist_ok=True)
        environment = {
            **install.environment(),
            **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch)),
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
            raise ModelError(f"{self.name} failed: {outcome.cause}", hint=f"its own words are in {log}")
        return outcome.text


def prepare_toolchain(toolchain: Toolchain, progress: Progress) -> Tools:
    """Install a toolchain, unless that has been done; two processes do it once.

    Raises:
        ModelError: it cannot be installed; the message has the installer's telling line, the hint its log.
        StoreError: the store cannot be written, or has no room.
    """
    folder = toolchain.folder
    with store_errors(_root()), _alone(folder, toolchain, progress):
        tools = _read(folder)
        if tools is None or not _works(tools):
            tools = _install(toolchain, progress)
        os.utime(folder / MARKER)
    return tools


def installed() -> list[Tools]:
    """Every toolchain that is whole."""
    return [tools for folder in sorted(_root().glob("*")) if (tools := _read(folder)) is not None]


def remove() -> list[Tools]:
    """Remove all toolchains and their logs, and return those that were whole. One that is being made is left alone."""
    removed = []
    with store_errors(_root()):
        for folder in [folder for folder in _root().glob("*-*") if folder.is_dir()]:
            with _lock(folder) as mine:
                if not mine:
                    continue
                tools = _read(folder)
                _discard(folder)
                removed += [tools] if tools else []
        shutil.rmtree(_root() / "logs", ignore_errors=True)
    return removed


def _install(toolchain: Toolchain, progress: Progress) -> Tools:
    folder = toolchain.folder
    if folder.exists():  # somebody was killed, or the Python that it was made from is gone
        _discard(folder)
    check_free(_root(), toolchain.size_bytes, toolchain.name)
    log = _log(toolchain.name, "install")
    try:
        versions = install.install(
            toolchain.name, toolchain.requirements, toolchain.left_out, folder=folder, log=log, progress=progress
        )
    except ModelError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    content = {
        "name": toolchain.name,
        "requirements": toolchain.requirements,
        "left_out": toolchain.left_out,
        "versions": versions,
        "size_bytes": sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    paths.write_json(folder / MARKER, content)  # the last thing that is done: from here on it is used
    tools = _read(folder)
    if tools is None:
        raise StoreError(f"{folder / MARKER} cannot be read")
    return tools


def _discard(folder: Path) -> None:
    (folder / MARKER).unlink(missing_ok=True)  # the first thing: what is half gone is not used
    shutil.rmtree(folder)


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
    except (KeyError, TypeError, OSError):  # half made, or made by another version
        return None


def _works(tools: Tools) -> bool:
    """Whether the Python that the environment was made from is still there."""
    command = [str(install.python(tools.path)), *install.FLAGS, "-c", ""]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _log(name: str, what: str) -> Path:
    """A file for what a program prints; the oldest of those that are there go."""
    folder = _root() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob("*.log"), key=lambda file: file.stat().st_mtime)[: -_LOGS + 1]:
        old.unlink(missing_ok=True)
    return folder / f"{name}-{what}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"


@contextlib.contextmanager
def _lock(folder: Path, wait_s: float = 0) -> Iterator[bool]:
    """Hold the lock of an environment, if it can be had in that time."""
    import filelock  # start-up: listing what is installed needs none

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
    """Let one process at a time make an environment; those who wait say so as long as they do."""
    while True:
        with _lock(folder, _WAIT_S) as mine:
            if mine:
                yield
                return
        progress(f"waiting for another process that installs {toolchain.name}")

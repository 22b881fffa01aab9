"""A private folder for one engine: the library writes its compiled kernels into the current one.

Kernels are worth keeping, for an NPU's driver takes its time over them; but two processes must not write the same
files, and what a killed process left half written must not be read. So there are numbered folders, each locked as long
as it is in use, and a mark in those whose kernels are whole.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock
from phi3_core.backend import compiled_folder
from phi3_core.values import Artifact, Device

_MOST = 64
_MARK = "whole"


class Workspace:
    """The folder, until :meth:`close`."""

    def __init__(self, folder: Path, lock: filelock.FileLock | None) -> None:
        self.folder = folder
        self._lock = lock
        self._before = Path.cwd()
        if not (folder / _MARK).is_file():
            shutil.rmtree(folder / "cache", ignore_errors=True)

    @classmethod
    def take(cls, artifact: Artifact, device: Device, version: str) -> Workspace:
        """The first numbered folder that nobody uses, or one that is thrown away if the store cannot be written.

        ``version`` is the library's. Kernels depend on it and on the driver.
        """
        base = compiled_folder(artifact, device, version)
        for number in range(_MOST if base is not None else 0):
            assert base is not None
            lock = filelock.FileLock(base / f"{number}.lock")
            with contextlib.suppress(filelock.Timeout):
                # A moment, because Windows documents that a killed process's locks may outlive it by one.
                lock.acquire(timeout=0.1, poll_interval=0.02)
                folder = base / str(number)
                folder.mkdir(exist_ok=True)
                return cls(folder, lock)
        return cls(Path(tempfile.mkdtemp(prefix="phi3-npu-")), None)

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """While kernels may be written. If the process ends in here, they are made anew the next time."""
        mark = self.folder / _MARK
        mark.unlink(missing_ok=True)
        yield
        mark.touch()

    def close(self) -> None:
        """Leave the folder to others."""
        os.chdir(self._before)
        if self._lock is not None:
            self._lock.release()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

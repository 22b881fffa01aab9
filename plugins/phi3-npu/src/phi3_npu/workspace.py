"""A private current folder for an engine, in which the library caches compiled kernels.

Kernels are kept because an NPU driver compiles them slowly. Two processes must not write the same files, and files that
a killed process wrote partially must not be read. Folders are therefore numbered and locked while in use, and contain
a marker file if all kernels are complete.
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
    """A folder reserved for one engine until :meth:`close`."""

    def __init__(self, folder: Path, lock: filelock.FileLock | None) -> None:
        self.folder = folder
        self._lock = lock
        self._before = Path.cwd()
        if not (folder / _MARK).is_file():
            shutil.rmtree(folder / "cache", ignore_errors=True)

    @classmethod
    def take(cls, artifact: Artifact, device: Device, version: str) -> Workspace:
        """Reserve the first unused folder, or a temporary one if the store is not writable.

        Args:
            artifact: the artifact to load.
            device: the device to load it on. Kernels depend on its driver.
            version: the version of the library. Kernels depend on it.
        """
        base = compiled_folder(artifact, device, version)
        for number in range(_MOST if base is not None else 0):
            assert base is not None
            lock = filelock.FileLock(base / f"{number}.lock")
            with contextlib.suppress(filelock.Timeout):
                # Not immediately: on Windows the locks of a killed process may be released with a delay.
                lock.acquire(timeout=0.1, poll_interval=0.02)
                folder = base / str(number)
                folder.mkdir(exist_ok=True)
                return cls(folder, lock)
        return cls(Path(tempfile.mkdtemp(prefix="phi3-npu-")), None)

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Enclose code that may write kernels. If the process ends inside, the next one compiles them again."""
        mark = self.folder / _MARK
        mark.unlink(missing_ok=True)
        yield
        mark.touch()

    def close(self) -> None:
        """Restore the current folder and release this one."""
        os.chdir(self._before)
        if self._lock is not None:
            self._lock.release()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

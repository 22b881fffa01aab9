"""Publish files that are derived from an artifact, where other processes may do the same at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from phi3_core.backend import replace_path


def publish(staging: Path, folder: Path, names: Sequence[str]) -> None:
    """Move files from ``staging`` to ``folder``, unless another process has published the same ones.

    Args:
        staging: a folder of this process, on the same disk.
        folder: the folder that all processes load from.
        names: the files. The last one marks the folder as complete.
    """
    complete = folder / names[-1]
    for name in names:
        if complete.is_file():
            return
        try:
            replace_path(staging / name, folder / name)
        except PermissionError:
            # On Windows, a process that was faster has loaded its files, which cannot be replaced then.
            if not complete.is_file():
                raise

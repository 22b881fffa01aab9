"""What a backend's ``quantize`` has left, checked before it is published: files of its own, in its folder only."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import frozen

from phi3_core.store import manifest, sidecars

_LOCK = ".lock"
_NOT_WEIGHTS = {manifest.NAME, *sidecars.FILES}


@frozen
class Surroundings:
    """What lies around a folder before a backend fills it: in the folder beside it, and in the source."""

    output: Path
    source: Path
    names: Mapping[Path, frozenset[str]]

    @classmethod
    def of(cls, output: Path, source: Path) -> Surroundings:
        """Return what lies around the folder ``output``."""
        return cls(output, source, {folder: _names(folder) for folder in (output.parent, source)})

    def stray(self) -> Path | None:
        """Return a file or folder that has appeared outside of the output; None if there is none.

        What other processes make in the store has a lock beside it, or is about to be removed.
        """
        for folder, before in self.names.items():
            now = _names(folder)
            for name in sorted(now - before):
                others = folder == self.output.parent and (
                    name.endswith(_LOCK) or f"{name}{_LOCK}" in now or name.startswith("removed-")
                )
                if not others:
                    return folder / name
        return None


def problem(around: Surroundings) -> str | None:
    """Return what is wrong with an output, to be put behind the name of the hook; None if it can be published."""
    output = around.output
    if output.is_symlink() or not output.is_dir():
        return "has removed or replaced the folder it was to fill"
    weights = False
    for entry in _entries(output):
        mode = entry.stat(follow_symlinks=False).st_mode
        name = Path(entry.path).relative_to(output).as_posix()
        if stat.S_ISLNK(mode):
            return f"left a link in its output instead of a file: {name}"
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return f"left something in its output that is neither a file nor a folder: {name}"
        weights = weights or (stat.S_ISREG(mode) and name not in _NOT_WEIGHTS and bool(entry.stat().st_size))
    stray = around.stray()
    if stray is not None:
        return f"wrote outside its output: {stray}"
    return None if weights else "left no weights in its output"


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path))


def _names(folder: Path) -> frozenset[str]:
    with contextlib.suppress(OSError):
        return frozenset(path.name for path in folder.iterdir())
    return frozenset()

"""Folders of the store, each made beside it and published whole, and removed whole."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from phi3_core import files, names
from phi3_core.errors import ModelError, StoreError

from . import manifest
from .entry import read_whole
from .locking import IN_USE_HINT, locked, store_errors

logger = logging.getLogger("phi3_core")

PARTIAL = ".partial"
"""Name of the subfolder for incomplete downloads.

If filling a folder fails, it is kept if it has this subfolder, so that the next attempt resumes the downloads."""

_REMOVED = "removed-"
"""Prefix of folders that are being deleted."""
_LONGEST_STAGING = 80
"""Size limit of names in ``staging``, so that the paths of downloads do not get longer than those in the store."""

Fill = Callable[[Path], Mapping[str, Any]]
"""Fills an empty folder, and returns the facts for its manifest."""
Wanted = Callable[[Mapping[str, Any]], bool]
"""Whether an existing folder can be used, judged by its manifest; else it is replaced."""


class Folders:
    """The folders below the store's root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(
        self, folder: Path, facts: Mapping[str, Any], fill: Fill, wanted: Wanted, *, hint: str = ""
    ) -> dict[str, Any]:
        """Return the manifest of ``folder``, which is filled by ``fill`` if it does not exist or is not wanted.

        ``hint`` is the hint of the error if the folder is damaged; without a hint it is made again.
        """
        staging = self.root / "staging" / _staging_name(folder.relative_to(self.root).parts)
        waiting = "%s that makes %s"
        with store_errors(self.root), locked(staging, lambda words: logger.info(waiting, words, staging.name)):
            content = self._found(folder, hint)
            if content is not None and wanted(content):
                return content
            old = content
            if old is not None:
                self._check_unused(folder, old["digest"])  # before the work, which may take hours
            self._sweep()
            _clear(staging)
            staging.mkdir(exist_ok=True)
            try:
                content = manifest.make(staging, {**facts, **fill(staging)})
                folder.parent.mkdir(parents=True, exist_ok=True)
                if old is not None:
                    self.discard(folder, old["digest"])
                files.remove_tree(staging / PARTIAL)
                files.replace_path(staging, folder, limit_s=files.PUBLISH_LIMIT_S)
            except BaseException:
                _clear(staging)
                raise
        return content

    @staticmethod
    def _found(folder: Path, hint: str) -> dict[str, Any] | None:
        try:
            return read_whole(folder, hint)
        except ModelError:
            if hint:
                raise
        files.remove_tree(folder)
        return None

    def _sweep(self) -> None:
        """Delete what killed processes have left; it may take gigabytes."""
        import filelock  # start-up: needed only for writing

        for folder in [path for path in (self.root / "staging").iterdir() if path.is_dir()]:
            if folder.name.startswith(_REMOVED):
                files.discard_tree(folder)
                continue
            with contextlib.suppress(filelock.Timeout), filelock.FileLock(f"{folder}.lock", timeout=0):
                _clear(folder)

    def discard(self, folder: Path, digest: str) -> None:
        """Rename a folder and its derived data, so that they disappear whole or stay whole, and delete them."""
        self._check_unused(folder, digest)
        staging = self.root / "staging"
        staging.mkdir(parents=True, exist_ok=True)
        derived = self.root / "engines" / digest[:16]
        trash = [staging / f"{_REMOVED}{kind}{digest[:16]}-{os.getpid()}" for kind in ("", "derived-")]
        for left in trash:
            files.discard_tree(left)
        has_derived = derived.exists()
        if has_derived:  # first, because programs can do without it
            files.replace_path(derived, trash[1])
        try:
            files.replace_path(folder, trash[0])
        except OSError:
            if has_derived:
                with contextlib.suppress(OSError):
                    trash[1].replace(derived)
            raise
        for left in trash:  # what cannot be deleted now is deleted by _sweep
            files.discard_tree(left)

    def _check_unused(self, folder: Path, digest: str) -> None:
        for each in (folder, self.root / "engines" / digest[:16]):
            if file := files.first_in_use(each):
                raise StoreError(f"{folder} is in use by another program, which has {file} open", hint=IN_USE_HINT)


def _staging_name(parts: tuple[str, ...]) -> str:
    """Return the name in ``staging`` for a folder of the store; with a digest if it is shortened."""
    name = "-".join(parts)
    if len(name.encode()) <= _LONGEST_STAGING:
        return name
    digest = hashlib.sha256("/".join(parts).encode()).hexdigest()[:12]
    return f"{names.storable(name, longest=_LONGEST_STAGING - 13)}-{digest}"


def _clear(staging: Path) -> None:
    """Delete unfinished work, unless it is a download that can be resumed."""
    if staging.is_symlink() or staging.is_file():  # a backend has replaced it
        staging.unlink()
        return
    if not (staging / PARTIAL).is_dir():
        files.remove_tree(staging)

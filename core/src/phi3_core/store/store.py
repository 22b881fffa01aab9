"""The store: models on this machine, visible only when they are complete.

::

    PHI3_HOME/
        artifacts/<model>/<backend>[-<layout>]-<precision>/   weights for one backend, with phi3.json
        sources/<model>/                                      original weights, with phi3.json
        packages/<name>-<version>/                            weights from a Python package, with phi3.json
        staging/                                              work in progress, and downloads that can be resumed
        engines/<digest>/                                     data derived from an artifact; may be deleted
        toolchains/                                           external exporters, installed once; may be deleted
        survey.json                                           the backends' cached answers

The modification time of a ``phi3.json`` is the time of the last use.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from phi3_core import paths
from phi3_core.disk import free_bytes
from phi3_core.errors import ModelError
from phi3_core.values import PRECISIONS, Artifact, Source

from . import manifest
from .entry import ArtifactKey, Entry, folder_bytes, read_entry, read_whole, removal_hint
from .locking import locked, store_errors

logger = logging.getLogger("phi3_core")

PARTIAL = ".partial"
"""Name of the subfolder for incomplete downloads.

If filling a folder fails, it is kept if it has this subfolder, so that the next attempt resumes the downloads."""

_REMOVED = "removed-"
"""Prefix of folders that are being deleted."""

Fill = Callable[[Path], Mapping[str, Any]]
"""Fills an empty folder, and returns the facts for its manifest."""
Wanted = Callable[[Mapping[str, Any]], bool]
"""Whether an existing folder can be used, judged by its manifest; else it is replaced."""


class Store:
    """The folder with the models of this machine.

    Args:
        root: the folder, by default :func:`phi3_core.paths.home`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or paths.home()

    # --- reading ------------------------------------------------------------------------------------------------

    def artifact(self, model: str, key: ArtifactKey) -> Artifact | None:
        """Return an artifact, or None if it is not in the store. The sizes of its files are checked.

        Raises:
            ModelError: the artifact is damaged.
        """
        folder = self._artifact_folder(model, key)
        content = read_whole(folder, removal_hint(model, key.backend, key.precision))
        if content is None:
            return None
        return Artifact(path=folder, backend=key.backend, precision=key.precision, manifest=content)

    def source(self, model: str) -> Source | None:
        """Return original weights, or None if they are not in the store. The sizes of their files are checked.

        Raises:
            ModelError: the weights are damaged.
        """
        folder = self.root / "sources" / model
        content = read_whole(folder, removal_hint(model))
        return None if content is None else Source(path=folder, model=model, revision=content.get("revision"))

    def source_digest(self, model: str) -> str:
        """Return the digest of original weights, even damaged ones; empty if they are not in the store."""
        content = paths.read_json(self.root / "sources" / model / manifest.NAME)
        return str(content.get("digest", "")) if isinstance(content, dict) else ""

    def knows(self, model: str) -> bool:
        """Return whether the store has a model of this name."""
        if not model or {"/", "\\"} & set(model) or model.startswith("."):
            return False
        return (self.root / "artifacts" / model).is_dir() or (self.root / "sources" / model).is_dir()

    def entries(self) -> list[Entry]:
        """Return all artifacts and sources, sorted by model, backend and precision."""
        found = []
        for folder in sorted(self.root.glob("artifacts/*/*/")):
            backend, _, precision = folder.name.rpartition("-")
            if (folder / manifest.NAME).is_file() and precision in PRECISIONS:
                found.append(read_entry(folder.parent.name, folder, backend.partition("-")[0], precision))
        found += [
            read_entry(folder.name, folder, None, None)
            for folder in sorted(self.root.glob("sources/*/"))
            if (folder / manifest.NAME).is_file()
        ]
        return sorted(found, key=lambda entry: (entry.model, entry.backend or "", entry.precision or ""))

    # --- writing ------------------------------------------------------------------------------------------------

    def make_artifact(self, model: str, key: ArtifactKey, fill: Fill, *, wanted: Wanted = lambda _: True) -> Artifact:
        """Return an artifact, made by ``fill`` unless the store has a ``wanted`` one. Locked across processes.

        Raises:
            ModelError: the existing artifact is damaged.
            StoreError: the store cannot be written.
        """
        folder = self._artifact_folder(model, key)
        facts = {"model": model, "backend": key.backend, "precision": key.precision, "layout": key.layout}
        hint = removal_hint(model, key.backend, key.precision)
        content = self._make(folder, facts, fill, wanted, hint=hint)
        return Artifact(path=folder, backend=key.backend, precision=key.precision, manifest=content)

    def make_source(self, model: str, fill: Fill, *, old: str = "") -> Source:
        """Return a source, made by ``fill`` if it is not in the store or has the digest ``old``.

        Raises as :meth:`make_artifact`.
        """
        folder = self.root / "sources" / model
        facts, hint = {"model": model}, removal_hint(model)
        content = self._make(folder, facts, fill, lambda found: found["digest"] != old, hint=hint)
        return Source(path=folder, model=model, revision=content.get("revision"))

    def package(self, name: str) -> Path | None:
        """Return the folder with the fetched files of a Python package, or None if it is not in the store."""
        folder = self.root / "packages" / name
        return None if read_whole(folder, "") is None else folder

    def make_package(self, name: str, fill: Fill) -> Path:
        """Return the folder with the files of a Python package, filled by ``fill`` if it is not in the store."""
        folder = self.root / "packages" / name
        self._make(folder, {}, fill, lambda _: True)
        return folder

    def packages(self) -> list[Path]:
        """Return the folders of all fetched Python packages."""
        return sorted(self.root.glob("packages/*/"))

    def remove_packages(self) -> int:
        """Remove the files of all fetched Python packages, and return their size in bytes."""
        with store_errors(self.root):
            folders = self.packages()
            freed = sum(map(folder_bytes, folders))
            for folder in folders:
                _remove(folder)
        return freed

    def derive(self, digest: str, name: str, fill: Fill) -> Path:
        """Return a folder with data derived from the artifact ``digest``, filled by ``fill`` if it does not exist."""
        folder = self.root / "engines" / digest[:16] / name
        self._make(folder, {}, fill, lambda _: True)
        return folder

    def _make(
        self, folder: Path, facts: Mapping[str, Any], fill: Fill, wanted: Wanted, *, hint: str = ""
    ) -> dict[str, Any]:
        """Return the manifest of ``folder``, which is filled if it does not exist or is not wanted.

        ``hint`` is the hint of the error if the folder is damaged; without a hint it is made again.
        """
        staging = self.root / "staging" / "-".join(folder.relative_to(self.root).parts)
        waiting = "%s that makes %s"
        with store_errors(self.root), locked(staging, lambda words: logger.info(waiting, words, staging.name)):
            content = self._found(folder, hint)
            if content is not None and wanted(content):
                return content
            old = content
            self._sweep()
            _clear(staging)
            staging.mkdir(exist_ok=True)
            try:
                content = manifest.make(staging, {**facts, **fill(staging)})
                folder.parent.mkdir(parents=True, exist_ok=True)
                _remove(staging / PARTIAL)
                if old is not None:
                    self._discard(folder, old["digest"])
                staging.replace(folder)
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
        _remove(folder)
        return None

    def _sweep(self) -> None:
        """Delete what killed processes have left; it may take gigabytes."""
        import filelock  # start-up: needed only for writing

        for folder in [path for path in (self.root / "staging").iterdir() if path.is_dir()]:
            if folder.name.startswith(_REMOVED):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            with contextlib.suppress(filelock.Timeout), filelock.FileLock(f"{folder}.lock", timeout=0):
                _clear(folder)

    # --- removing -----------------------------------------------------------------------------------------------

    def free_bytes(self) -> int:
        """Return the free bytes on the disk of the store."""
        return free_bytes(self.root)

    def remove(self, entry: Entry) -> None:
        """Remove an entry, which disappears at once, and the data that backends derived from it."""
        with store_errors(self.root):
            self._discard(entry.path, entry.manifest["digest"])
            with contextlib.suppress(OSError):
                entry.path.parent.rmdir()  # the model's folder, if it is empty now

    def _discard(self, folder: Path, digest: str) -> None:
        trash = self.root / "staging" / f"{_REMOVED}{digest[:16]}-{os.getpid()}"
        trash.parent.mkdir(parents=True, exist_ok=True)
        folder.replace(trash)
        shutil.rmtree(trash, ignore_errors=True)  # what cannot be deleted now is deleted by _sweep
        shutil.rmtree(self.root / "engines" / digest[:16], ignore_errors=True)

    def _artifact_folder(self, model: str, key: ArtifactKey) -> Path:
        return self.root / "artifacts" / model / key.folder


def _clear(staging: Path) -> None:
    """Delete unfinished work, unless it is a download that can be resumed."""
    if not (staging / PARTIAL).is_dir():
        _remove(staging)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)

"""The store: models that this machine has, each visible only when it is whole.

::

    PHI3_HOME/
        artifacts/<model>/<backend>[-<layout>]-<precision>/   weights for one backend, with phi3.json
        sources/<model>/                                      original weights, with phi3.json
        packages/<name>-<version>/                            weights from a Python package, with phi3.json
        staging/                                              what is being made, and downloads that go on later
        engines/<digest>/                                     what backends derive from an artifact; may be deleted
        toolchains/                                           programs of others, made once; may be deleted
        survey.json                                           the backends' last answers

The modification time of a ``phi3.json`` is when the model was last used.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from phi3_core import paths
from phi3_core.disk import free_bytes
from phi3_core.errors import ModelError
from phi3_core.values import PRECISIONS, Artifact, Source

from . import manifest
from .locking import locked, store_errors

logger = logging.getLogger("phi3_core")

PARTIAL = ".partial"
"""The folder, inside one that is being made, that holds the beginnings of files which are being downloaded.

A folder with it in is kept when making it fails, so that the next attempt goes on where this one stopped."""

_REMOVED = "removed-"
"""What the names of folders begin with that are on their way out."""

Fill = Callable[[Path], Mapping[str, Any]]
"""Puts files into an empty folder, and returns what the manifest is to say about them."""
Wanted = Callable[[Mapping[str, Any]], bool]
"""Whether what is there already will do, by its manifest; else it is replaced."""


@frozen(kw_only=True)
class ArtifactKey:
    """Which of a model's artifacts: for which backend, at which precision."""

    backend: str
    precision: str
    layout: str = ""
    """A word of the backend's, where its devices do not all load the same weights."""

    @property
    def folder(self) -> str:
        return "-".join(filter(None, (self.backend, self.layout, self.precision)))


@frozen(kw_only=True)
class Entry:
    """Something in the store: an artifact, or a source (whose ``backend`` and ``precision`` are None)."""

    model: str
    path: Path
    backend: str | None
    precision: str | None
    manifest: Mapping[str, Any]
    used: float
    """When it was last used, in seconds since the epoch."""

    @property
    def size_bytes(self) -> int:
        return sum(int(file["size"]) for file in self.manifest["files"].values())


class Store:
    """The folder that holds the models."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or paths.home()

    # --- finding ------------------------------------------------------------------------------------------------

    def artifact(self, model: str, key: ArtifactKey) -> Artifact | None:
        """An artifact that is there and whole, as far as its files' sizes tell.

        Raises:
            ModelError: it is there, and damaged.
        """
        folder = self._artifact_folder(model, key)
        content = _whole(folder, removal(model, key.backend, key.precision))
        if content is None:
            return None
        return Artifact(path=folder, backend=key.backend, precision=key.precision, manifest=content)

    def source(self, model: str) -> Source | None:
        """Original weights that are there and whole, as far as their files' sizes tell."""
        folder = self.root / "sources" / model
        content = _whole(folder, removal(model))
        return None if content is None else Source(path=folder, model=model, revision=content.get("revision"))

    def source_digest(self, model: str) -> str:
        """The digest of the original weights that are there, damaged or not; else an empty word."""
        content = paths.read_json(self.root / "sources" / model / manifest.NAME)
        return str(content.get("digest", "")) if isinstance(content, dict) else ""

    def knows(self, model: str) -> bool:
        """Whether there is anything by that name."""
        if not model or {"/", "\\"} & set(model) or model.startswith("."):
            return False
        return (self.root / "artifacts" / model).is_dir() or (self.root / "sources" / model).is_dir()

    def entries(self) -> list[Entry]:
        """Everything that is visible, by model, backend and precision."""
        found = []
        for folder in sorted(self.root.glob("artifacts/*/*/")):
            backend, _, precision = folder.name.rpartition("-")
            if (folder / manifest.NAME).is_file() and precision in PRECISIONS:
                found.append(_entry(folder.parent.name, folder, backend.partition("-")[0], precision))
        found += [
            _entry(folder.name, folder, None, None)
            for folder in sorted(self.root.glob("sources/*/"))
            if (folder / manifest.NAME).is_file()
        ]
        return sorted(found, key=lambda entry: (entry.model, entry.backend or "", entry.precision or ""))

    # --- making -------------------------------------------------------------------------------------------------

    def make_artifact(self, model: str, key: ArtifactKey, fill: Fill, *, wanted: Wanted = lambda _: True) -> Artifact:
        """Return the artifact, filled by ``fill`` unless a ``wanted`` one is there. Two processes do the work once."""
        folder = self._artifact_folder(model, key)
        facts = {"model": model, "backend": key.backend, "precision": key.precision, "layout": key.layout}
        hint = removal(model, key.backend, key.precision)
        content = self._make(folder, facts, fill, wanted, hint=hint)
        return Artifact(path=folder, backend=key.backend, precision=key.precision, manifest=content)

    def make_source(self, model: str, fill: Fill, *, old: str = "") -> Source:
        """Return the source, filled by ``fill`` if it is not there yet, or is the one whose digest is ``old``."""
        folder = self.root / "sources" / model
        facts, hint = {"model": model}, removal(model)
        content = self._make(folder, facts, fill, lambda found: found["digest"] != old, hint=hint)
        return Source(path=folder, model=model, revision=content.get("revision"))

    def package(self, name: str) -> Path | None:
        """Return the folder with the files of a Python package that were fetched, if they are there and whole."""
        folder = self.root / "packages" / name
        return None if _whole(folder, "") is None else folder

    def make_package(self, name: str, fill: Fill) -> Path:
        """Return the folder with a Python package's files, filled by ``fill`` if it is not there yet."""
        folder = self.root / "packages" / name
        self._make(folder, {}, fill, lambda _: True)
        return folder

    def remove_packages(self) -> int:
        """Remove what was fetched of Python packages, and return its size in bytes."""
        freed = 0
        with store_errors(self.root):
            for folder in sorted(self.root.glob("packages/*/")):
                freed += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                _remove(folder)
        return freed

    def derive(self, digest: str, name: str, fill: Fill) -> Path:
        """Return a folder of things derived from the artifact ``digest``, filled by ``fill`` if it is not there yet."""
        folder = self.root / "engines" / digest[:16] / name
        self._make(folder, {}, fill, lambda _: True)
        return folder

    def _make(
        self, folder: Path, facts: Mapping[str, Any], fill: Fill, wanted: Wanted, *, hint: str = ""
    ) -> dict[str, Any]:
        """``hint`` is for when a damaged one is there; without any it is made anew."""
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
            return _whole(folder, hint)
        except ModelError:
            if hint:
                raise
        _remove(folder)
        return None

    def _sweep(self) -> None:
        """Delete what killed processes left, gigabytes perhaps."""
        import filelock  # start-up: as in `locked`

        for folder in [path for path in (self.root / "staging").iterdir() if path.is_dir()]:
            if folder.name.startswith(_REMOVED):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            with contextlib.suppress(filelock.Timeout), filelock.FileLock(f"{folder}.lock", timeout=0):
                _clear(folder)

    # --- removing -----------------------------------------------------------------------------------------------

    def free_bytes(self) -> int:
        """What is free on the store's disk."""
        return free_bytes(self.root)

    def remove(self, entry: Entry) -> None:
        """Take an entry out of sight at once, then delete it and what backends derived from it."""
        with store_errors(self.root):
            self._discard(entry.path, entry.manifest["digest"])
            with contextlib.suppress(OSError):
                entry.path.parent.rmdir()  # the model's folder, if this was the last of it

    def _discard(self, folder: Path, digest: str) -> None:
        trash = self.root / "staging" / f"{_REMOVED}{digest[:16]}-{os.getpid()}"
        trash.parent.mkdir(parents=True, exist_ok=True)
        folder.replace(trash)
        shutil.rmtree(trash, ignore_errors=True)  # what cannot be deleted now is swept up later
        shutil.rmtree(self.root / "engines" / digest[:16], ignore_errors=True)

    def _artifact_folder(self, model: str, key: ArtifactKey) -> Path:
        return self.root / "artifacts" / model / key.folder


def touch(folder: Path) -> None:
    """Note that a model is used now. A store that cannot be written does not know when."""
    with contextlib.suppress(OSError):
        os.utime(folder / manifest.NAME)


def removal(model: str, backend: str | None = None, precision: str | None = None) -> str:
    """The hint about a damaged one: remove no more than that. Without a backend it is the original weights."""
    which = "--source" if backend is None else f"--backend {backend} --precision {precision}"
    return f"phi3 models rm {model} {which}, then ask for it again"


def _whole(folder: Path, hint: str) -> dict[str, Any] | None:
    try:
        content = manifest.read(folder)
        if content is not None:
            manifest.check_sizes(folder, content)
    except ModelError as error:
        raise ModelError(error.message, hint=hint) from error
    return content


def _entry(model: str, folder: Path, backend: str | None, precision: str | None) -> Entry:
    damaged = {"files": {}, "digest": "damaged", "damaged": True}
    try:
        content = manifest.read(folder) or damaged
    except ModelError:
        content = damaged
    if backend is not None and content is not damaged and _folder_of(content) != folder.name:
        content = damaged
    used = (folder / manifest.NAME).stat().st_mtime
    return Entry(model=model, path=folder, backend=backend, precision=precision, manifest=content, used=used)


def _folder_of(content: Mapping[str, Any]) -> str:
    """The name of the folder that an artifact's manifest belongs into."""
    words = {key: content.get(key, "") for key in ("backend", "precision", "layout")}
    return ArtifactKey(**words).folder


def _clear(staging: Path) -> None:
    """Delete what a process began: of no use, unless it is a download, which goes on where it stopped."""
    if not (staging / PARTIAL).is_dir():
        _remove(staging)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)

"""Entries of the store: artifacts and original weights, with their manifests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from phi3_core.errors import ModelError

from . import manifest


@frozen(kw_only=True)
class ArtifactKey:
    """Identifies one artifact of a model."""

    backend: str
    precision: str
    layout: str = ""
    """The backend's name for the format of the weights, if its devices load different ones."""

    @property
    def folder(self) -> str:
        """The name of the artifact's folder."""
        return "-".join(filter(None, (self.backend, self.layout, self.precision)))


@frozen(kw_only=True)
class Entry:
    """An artifact in the store, or a source, whose ``backend`` and ``precision`` are None."""

    model: str
    path: Path
    backend: str | None
    precision: str | None
    manifest: Mapping[str, Any]
    used: float
    """Time of the last use, in seconds since the epoch."""

    @property
    def size_bytes(self) -> int:
        """The size of all files, according to the manifest."""
        return sum(int(file["size"]) for file in self.manifest["files"].values())


def folder_bytes(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def touch(folder: Path) -> None:
    """Record that a model is used now, if the store can be written."""
    with contextlib.suppress(OSError):
        os.utime(folder / manifest.NAME)


def removal_hint(model: str, backend: str | None = None, precision: str | None = None) -> str:
    """Return the hint for a damaged artifact or, without a backend, for damaged original weights."""
    which = "--source" if backend is None else f"--backend {backend} --precision {precision}"
    return f"phi3 models rm {model} {which}, then obtain it again"


def read_whole(folder: Path, hint: str) -> dict[str, Any] | None:
    """Return the manifest of a folder, after checking the sizes of its files; None if it has no manifest.

    Raises:
        ModelError: the manifest or a file is damaged; the error has the given ``hint``.
    """
    try:
        content = manifest.read(folder)
        if content is not None:
            manifest.check_sizes(folder, content)
    except ModelError as error:
        raise ModelError(error.message, hint=hint) from error
    return content


def read_entry(model: str, folder: Path, backend: str | None, precision: str | None) -> Entry:
    """Return the entry for a folder. If its manifest is damaged, ``manifest["damaged"]`` is true."""
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
    """Return the name of the folder that an artifact's manifest belongs to."""
    words = {key: content.get(key, "") for key in ("backend", "precision", "layout")}
    return ArtifactKey(**words).folder

"""The store: models that this machine has, each visible only when it is whole.

::

    PHI3_HOME/
        artifacts/<model>/<backend>-<precision>/   weights for one backend, with phi3.json
        sources/<model>/                           original weights, with phi3.json
        staging/                                   what is being made
        engines/<digest>/                          what backends derive from an artifact; may be deleted at any time
        survey.json                                the backends' last answers
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from phi3_core import paths
from phi3_core.errors import ModelError, StoreError
from phi3_core.values import PRECISIONS, Artifact, Source

from . import manifest

Fill = Callable[[Path], Mapping[str, Any]]
"""Puts files into an empty folder, and returns what the manifest is to say about them."""


@frozen(kw_only=True)
class Entry:
    """Something in the store: an artifact, or a source (whose ``backend`` and ``precision`` are None)."""

    model: str
    path: Path
    backend: str | None
    precision: str | None
    manifest: Mapping[str, Any]

    @property
    def size_bytes(self) -> int:
        return sum(int(file["size"]) for file in self.manifest["files"].values())


class Store:
    """The folder that holds the models."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or paths.home()

    # --- finding ------------------------------------------------------------------------------------------------

    def artifact(self, model: str, backend: str, precision: str) -> Artifact | None:
        """An artifact that is there and whole, as far as its files' sizes tell.

        Raises:
            ModelError: it is there, and damaged.
        """
        folder = self._artifact_folder(model, backend, precision)
        content = _whole(folder, model)
        if content is None:
            return None
        return Artifact(path=folder, backend=backend, precision=precision, manifest=content)

    def source(self, model: str) -> Source | None:
        """Original weights that are there and whole, as far as their files' sizes tell."""
        folder = self.root / "sources" / model
        content = _whole(folder, model)
        return None if content is None else Source(path=folder, model=model, revision=content.get("revision"))

    def entries(self) -> list[Entry]:
        """Everything that is visible, by model, backend and precision."""
        found = []
        for folder in sorted(self.root.glob("artifacts/*/*/")):
            backend, _, precision = folder.name.rpartition("-")
            if (folder / manifest.NAME).is_file() and precision in PRECISIONS:
                found.append(_entry(folder.parent.name, folder, backend, precision))
        found += [
            _entry(folder.name, folder, None, None)
            for folder in sorted(self.root.glob("sources/*/"))
            if (folder / manifest.NAME).is_file()
        ]
        return sorted(found, key=lambda entry: (entry.model, entry.backend or "", entry.precision or ""))

    # --- making -------------------------------------------------------------------------------------------------

    def make_artifact(self, model: str, backend: str, precision: str, fill: Fill) -> Artifact:
        """Return the artifact, filled by ``fill`` if it is not there yet. Two processes do the work once."""
        folder = self._artifact_folder(model, backend, precision)
        facts = {"model": model, "backend": backend, "precision": precision}
        content = self._make(folder, model, facts, fill)
        return Artifact(path=folder, backend=backend, precision=precision, manifest=content)

    def make_source(self, model: str, fill: Fill) -> Source:
        """Return the source, filled by ``fill`` if it is not there yet."""
        folder = self.root / "sources" / model
        content = self._make(folder, model, {"model": model}, fill)
        return Source(path=folder, model=model, revision=content.get("revision"))

    def derive(self, digest: str, name: str, fill: Fill) -> Path:
        """Return a folder of things derived from the artifact ``digest``, filled by ``fill`` if it is not there yet."""
        folder = self.root / "engines" / digest[:16] / name
        self._make(folder, name, {}, fill)
        return folder

    def _make(self, folder: Path, model: str, facts: Mapping[str, Any], fill: Fill) -> dict[str, Any]:
        import filelock

        staging = self.root / "staging" / "-".join(folder.relative_to(self.root).parts)
        with store_errors(self.root):
            staging.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(f"{staging}.lock"):
                content = _whole(folder, model)
                if content is not None:
                    return content
                _remove(staging)  # what a killed process left
                staging.mkdir()
                try:
                    content = manifest.make(staging, {**facts, **fill(staging)})
                    folder.parent.mkdir(parents=True, exist_ok=True)
                    staging.replace(folder)
                except BaseException:
                    _remove(staging)
                    raise
        return content

    # --- removing -----------------------------------------------------------------------------------------------

    def remove(self, entry: Entry) -> None:
        """Take an entry out of sight at once, then delete it and what backends derived from it."""
        with store_errors(self.root):
            trash = self.root / "staging" / f"removed-{entry.manifest['digest'][:16]}-{os.getpid()}"
            trash.parent.mkdir(parents=True, exist_ok=True)
            entry.path.replace(trash)
            shutil.rmtree(trash)
            shutil.rmtree(self.root / "engines" / entry.manifest["digest"][:16], ignore_errors=True)
            with contextlib.suppress(OSError):
                entry.path.parent.rmdir()  # the model's folder, if this was the last of it

    def _artifact_folder(self, model: str, backend: str, precision: str) -> Path:
        return self.root / "artifacts" / model / f"{backend}-{precision}"


@contextlib.contextmanager
def store_errors(root: Path) -> Iterator[None]:
    """Turn what the file system has to say into one line with a hint."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT} or getattr(error, "winerror", None) == 112:
            hint = "free some space, or set PHI3_HOME to a folder on another disk"
            raise StoreError(f"no space is left for the store {root}", hint=hint) from error
        reason = (error.strerror or str(error)).lower()
        where = error.filename or root
        raise StoreError(
            f"the store {root} cannot be written: {reason}: {where}", hint="set PHI3_HOME to a folder you can write to"
        ) from error


def _whole(folder: Path, model: str) -> dict[str, Any] | None:
    try:
        content = manifest.read(folder)
        if content is not None:
            manifest.check_sizes(folder, content)
    except ModelError as error:
        raise ModelError(error.message, hint=f"phi3 models rm {model}, then pull it again") from error
    return content


def _entry(model: str, folder: Path, backend: str | None, precision: str | None) -> Entry:
    content = paths.read_json(folder / manifest.NAME)
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        content = {"files": {}, "digest": "damaged", "damaged": True}
    return Entry(model=model, path=folder, backend=backend, precision=precision, manifest=content)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)

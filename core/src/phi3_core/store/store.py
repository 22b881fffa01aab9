"""The store: models on this machine, visible only when they are complete.

::

    PHI3_HOME/
        artifacts/<model>/<backend>[-<layout>]-<precision>/   weights for one backend, with phi3.json
        sources/<model>/                                      original weights, with phi3.json
        packages/<name>-<version>/                            weights from a Python package, with phi3.json
        staging/                                              work in progress, and downloads that can be resumed
        libraries/                                            what libraries and drivers cache; may be deleted
        engines/<digest>/                                     data derived from an artifact; may be deleted
        toolchains/                                           external exporters, installed once; may be deleted
        figures/                                              what was measured on this machine; may be deleted
        failures/                                             devices that failed; may be deleted
        checks/                                               which devices gave the known answers; may be deleted
        running/                                              engines that are loaded now, for `phi3 top`
        survey.json                                           the backends' cached answers

The modification time of a ``phi3.json`` is the time of the last use.

Names of models are compared with those of the folders, exactly and on every file system alike: Windows would also find
``sample`` under ``SAMPLE`` and ``sample.``. Only names that every system can store are written, and no two of them that
are one name on some system.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from phi3_core import names, paths
from phi3_core.disk import free_bytes
from phi3_core.errors import ModelError
from phi3_core.values import PRECISIONS, Artifact, Source

from . import manifest
from .entry import ArtifactKey, Entry, folder_bytes, read_entry, read_whole, removal_hint
from .folders import PARTIAL as PARTIAL  # noqa: PLC0414 - users import it from here
from .folders import Fill, Folders, Wanted
from .locking import store_errors


class Store:
    """The folder with the models of this machine.

    Args:
        root: the folder, by default :func:`phi3_core.paths.home`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or paths.home()
        self._folders = Folders(self.root)

    # --- reading ------------------------------------------------------------------------------------------------

    def artifact(self, model: str, key: ArtifactKey) -> Artifact | None:
        """Return an artifact, or None if it is not in the store. The sizes of its files are checked.

        Raises:
            ModelError: the artifact is damaged.
        """
        if model not in self._names("artifacts"):
            return None
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
        if model not in self._names("sources"):
            return None
        folder = self.root / "sources" / model
        content = read_whole(folder, removal_hint(model))
        return None if content is None else Source(path=folder, model=model, revision=content.get("revision"))

    def source_digest(self, model: str) -> str:
        """Return the digest of original weights, even damaged ones; empty if they are not in the store."""
        if model not in self._names("sources"):
            return ""
        return _recorded_digest(self.root / "sources" / model)

    def artifact_digest(self, model: str, key: ArtifactKey) -> str:
        """Return the digest of an artifact, even a damaged one; empty if it is not in the store."""
        if model not in self._names("artifacts"):
            return ""
        return _recorded_digest(self._artifact_folder(model, key))

    def knows(self, model: str) -> bool:
        """Return whether the store has a model of exactly this name."""
        return model in self._names("artifacts", "sources")

    def known_variant(self, model: str) -> str | None:
        """Return the name of a model in the store that is one name with ``model`` on some system, or None."""
        found = (name for name in self._names("artifacts", "sources") if names.key(name) == names.key(model))
        return min(found, key=lambda name: name != model, default=None)

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
            ModelError: the existing artifact is damaged, or the model's name cannot be stored.
            StoreError: the store cannot be written, or the artifact to be replaced is in use.
        """
        self._check_name(model)
        folder = self._artifact_folder(model, key)
        facts = {"model": model, "backend": key.backend, "precision": key.precision, "layout": key.layout}
        hint = removal_hint(model, key.backend, key.precision)
        content = self._folders.make(folder, facts, fill, wanted, hint=hint)
        return Artifact(path=folder, backend=key.backend, precision=key.precision, manifest=content)

    def make_source(self, model: str, fill: Fill, *, old: str = "") -> Source:
        """Return a source, made by ``fill`` if it is not in the store or has the digest ``old``.

        Raises as :meth:`make_artifact`.
        """
        self._check_name(model)
        folder = self.root / "sources" / model
        facts, hint = {"model": model}, removal_hint(model)
        content = self._folders.make(folder, facts, fill, lambda found: found["digest"] != old, hint=hint)
        return Source(path=folder, model=model, revision=content.get("revision"))

    def package(self, name: str) -> Path | None:
        """Return the folder with the fetched files of a Python package, or None if it is not in the store."""
        folder = self.root / "packages" / name
        return None if read_whole(folder, "") is None else folder

    def make_package(self, name: str, fill: Fill) -> Path:
        """Return the folder with the files of a Python package, filled by ``fill`` if it is not in the store."""
        folder = self.root / "packages" / name
        self._folders.make(folder, {}, fill, lambda _: True)
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
                self._folders.discard(folder, folder.name)
        return freed

    def derive(self, digest: str, name: str, fill: Fill) -> Path:
        """Return a folder with data derived from the artifact ``digest``, filled by ``fill`` if it does not exist."""
        folder = self.root / "engines" / digest[:16] / name
        self._folders.make(folder, {}, fill, lambda _: True)
        return folder

    # --- removing -----------------------------------------------------------------------------------------------

    def free_bytes(self) -> int:
        """Return the free bytes on the disk of the store."""
        return free_bytes(self.root)

    def remove(self, entry: Entry) -> None:
        """Remove an entry, which disappears at once, and the data that backends derived from it.

        Raises:
            StoreError: the entry is in use, on Windows; nothing of it is removed.
        """
        with store_errors(self.root):
            self._folders.discard(entry.path, entry.manifest["digest"])
            with contextlib.suppress(OSError):
                entry.path.parent.rmdir()  # the model's folder, if it is empty now

    # --- names --------------------------------------------------------------------------------------------------

    def _names(self, *rooms: str) -> set[str]:
        """Return the names of the folders in ``artifacts`` or ``sources``, as they are written there."""
        found: set[str] = set()
        for room in rooms:
            with contextlib.suppress(OSError), os.scandir(self.root / room) as entries:
                found.update(entry.name for entry in entries if entry.is_dir())
        return found

    def _check_name(self, model: str) -> None:
        """Raise :class:`ModelError` if a model of this name cannot be stored on every system."""
        if why := names.problem(model):
            raise ModelError(f"a model cannot be stored as {model!r}: {why}", hint="rename the folder or file")
        if (other := self.known_variant(model)) not in {None, model}:
            raise ModelError(
                f"a model cannot be stored as {model!r}: the store has {other!r}, which some systems do not tell apart",
                hint=f"phi3 models rm {other}, or rename the folder or file",
            )

    def _artifact_folder(self, model: str, key: ArtifactKey) -> Path:
        return self.root / "artifacts" / model / key.folder


def _recorded_digest(folder: Path) -> str:
    """Return the digest that a folder's manifest records; empty if there is none."""
    content = paths.read_json(folder / manifest.NAME)
    return str(content.get("digest", "")) if isinstance(content, dict) else ""

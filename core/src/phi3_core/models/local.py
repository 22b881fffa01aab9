"""The user's own files: load them in place, or copy them into the store."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from phi3_core import names
from phi3_core.checkpoint import gguf_parts
from phi3_core.checkpoint.contents import lacks_settings, nested, unusable
from phi3_core.errors import ModelError, NoArtifactError
from phi3_core.hub.cache import unfinished
from phi3_core.store import manifest
from phi3_core.store.entry import ArtifactKey
from phi3_core.store.store import Store
from phi3_core.values import Artifact, Device

from .catalogue import CATALOGUE
from .ref import fingerprint
from .request import ResolvedModel


def obtain(
    path: Path, device: Device, precisions: tuple[str, ...], *, recognize: Callable[[Path], str | None]
) -> ResolvedModel:
    """Return the artifact in a folder, in place.

    Args:
        path: the folder.
        device: the device to load it on.
        precisions: the allowed precisions.
        recognize: calls the backend's hook ``recognize``.

    Raises:
        NoArtifactError: the artifact is not for the device's backend, or has none of the precisions.
        ModelError: the artifact is damaged.
    """
    content = manifest.read(path)
    if content is not None and "backend" in content:
        if content["backend"] != device.backend:
            raise NoArtifactError(f"{path} holds weights for {content['backend']}, not for {device.backend}")
        manifest.check_sizes(path, content)
        precision = str(content.get("precision"))
    else:
        found = recognize(path)
        if found is None:
            raise _nothing_found(path, device)
        precision = found
        content = content or {"digest": fingerprint(path)}
    if precision not in precisions:
        raise NoArtifactError(
            f"{path} holds {precision} weights, and {device} is to run {', '.join(precisions)}",
            hint="leave --precision out",
        )
    artifact = Artifact(path=path, backend=device.backend, precision=precision, manifest=content)
    return ResolvedModel(artifact=artifact, tokenizer_dir=path, origin=f"from {path}")


def _nothing_found(path: Path, device: Device) -> NoArtifactError:
    """Return the error for a path with nothing that a backend recognizes, with what is there instead."""
    message, hint = f"{device.backend} finds no weights in {path} that it can load", None
    if path.is_dir():
        files = [file for pattern in ("*", "*/*") for file in path.glob(pattern) if file.is_file()]
        names = [file.relative_to(path).as_posix() for file in files]
        found = unusable(path.as_posix(), names)
        if found is not None:
            return NoArtifactError(f"{path} {found.words}", hint=found.hint)
        if (partial := unfinished(path)) is not None:
            words = f"{path} has no weights: their download is not finished ({partial[0].name})"
            return NoArtifactError(words, hint=partial[1])
        inner = nested(path)
        if (lacking := lacks_settings(names)) is not None:
            return NoArtifactError(f"{message}: {lacking}", hint="take the original weights")
        if inner:
            message += f"; its folders {', '.join(folder.name for folder in inner[:8])} have some"
            hint = f'phi3 run --model "{inner[0]}"'
    return NoArtifactError(message, hint=hint or "phi3 models list shows the available models")


def import_into_store(name: str, found: ResolvedModel, store: Store) -> Artifact:
    """Copy the user's own files into the store under a model name.

    Raises:
        ModelError: the name cannot be stored on every system, or differs from one of the catalogue by case only.
        StoreError: the store cannot be written, or its disk is full.
    """
    artifact = found.artifact
    name = unicodedata.normalize("NFC", name)
    for known in CATALOGUE:
        if known != name and names.key(known) == names.key(name):
            raise ModelError(
                f"a model cannot be stored as {name!r}: the catalogue has {known!r}", hint="rename the folder or file"
            )

    def fill(folder: Path) -> Mapping[str, Any]:
        if artifact.path.is_file():  # a GGUF file, of which a link into a cache or Ollama's store has no suffix
            shutil.copyfile(artifact.path, folder / f"{gguf_parts.stem(artifact.path)}{gguf_parts.SUFFIX}")
        folders = {found.tokenizer_dir, artifact.path} if artifact.path.is_dir() else {found.tokenizer_dir}
        for file in sorted(file for each in folders for file in each.iterdir()):
            if file.is_file() and file.name not in {manifest.NAME, gguf_parts.LINK}:
                shutil.copyfile(file, folder / file.name)
        kept = ("source", "revision", "recipe", "quality", "context_length")
        return {key: artifact.manifest[key] for key in kept if key in artifact.manifest}

    return store.make_artifact(name, ArtifactKey(backend=artifact.backend, precision=artifact.precision), fill)

"""Ollama's own store, whose files can be named as paths.

::

    manifests/REGISTRY/OWNER/MODEL/TAG     JSON: the layers that a model consists of
    blobs/sha256-HASH                      the layers; that of the weights is a GGUF file

It is only read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phi3_core import paths
from phi3_core.errors import ModelError
from phi3_core.hub.contents import shown

_WEIGHTS = "application/vnd.ollama.image.model"
_ADAPTER = "application/vnd.ollama.image.adapter"
_LARGEST = 2**20


def find(path: Path) -> tuple[str, Path] | None:
    """Return the name and the GGUF file of the model that a manifest, or a folder of the store with one, stands for.

    None if the path is neither, such as a layer itself.

    Raises:
        ModelError: the folder has several models, or the model is an adapter on another one, or is not whole.
    """
    root = _root(path)
    if root is None:
        return None
    top = path if path.is_relative_to(root / "manifests") else root / "manifests"
    found = [path] if path.is_file() else sorted(file for file in top.rglob("*") if _is_manifest(file))
    if not found:
        return None
    if len(found) > 1:
        names = [_name(file) for file in found]
        raise ModelError(f"{path} holds models of Ollama: {shown(names)}", hint=f"name one of them: {found[0]}")
    layers = list(_layers(found[0]))
    if any(kind == _ADAPTER for kind, _ in layers):
        hint = "merge the adapter into its base, and use the merged model"
        raise ModelError(f"Ollama's model {_name(found[0])} is an adapter (LoRA) on another model", hint=hint)
    weights = next((digest for kind, digest in layers if kind == _WEIGHTS), None)
    if weights is None:
        return None
    file = root / "blobs" / weights.replace(":", "-")
    if not file.is_file():
        hint = f"ollama pull {_name(found[0])}"
        raise ModelError(f"Ollama's model {_name(found[0])} is not whole: {file} is missing", hint=hint)
    return _name(found[0]).replace(":", "-"), file


def _root(path: Path) -> Path | None:
    """Return the folder with ``manifests`` and ``blobs`` that a manifest or folder belongs to, or None."""
    if path.is_file() and not _is_manifest(path):
        return None
    for folder in (path, *path.parents):
        if (folder / "manifests").is_dir() and (folder / "blobs").is_dir():
            inner = path.relative_to(folder).parts
            return folder if inner in {(), ("blobs",)} or inner[0] == "manifests" else None
    return None


def _is_manifest(file: Path) -> bool:
    return any(kind == _WEIGHTS for kind, _ in _layers(file))


def _layers(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the type and digest of each layer that a manifest names; none if the file is no manifest."""
    content: Any = paths.read_json(file) if file.is_file() and file.stat().st_size <= _LARGEST else None
    layers = content.get("layers") if isinstance(content, dict) else None
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, dict) and isinstance(layer.get("digest"), str):
            yield str(layer.get("mediaType")), layer["digest"]


def _name(manifest: Path) -> str:
    """Return a model's name as Ollama writes it, without the registry and the owner."""
    return f"{manifest.parent.name}:{manifest.name}"

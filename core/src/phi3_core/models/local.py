"""The user's own files, loaded where they lie or taken into the store."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from phi3_core.checkpoint.gguf import Gguf
from phi3_core.store import manifest
from phi3_core.store.store import Form, Store
from phi3_core.values import Artifact, Device

from .obtained import Obtained, Unobtainable


def obtain(
    path: Path, device: Device, precisions: tuple[str, ...], store: Store, *, recognize: Callable[[Path], str | None]
) -> Obtained:
    """Weights in a folder or a GGUF file, as they are; ``recognize`` asks the backend what it makes of them.

    Raises:
        Unobtainable: not for this device's backend, or not in one of the precisions.
        ModelError: damaged.
    """
    content = manifest.read(path) if path.is_dir() else None
    if content is not None and "backend" in content:
        if content["backend"] != device.backend:
            raise Unobtainable(f"{path} holds weights for {content['backend']}, not for {device.backend}")
        manifest.check_sizes(path, content)
        precision = str(content.get("precision"))
    else:
        if path.suffix.lower() == ".gguf":
            Gguf.open(path)  # a native reader may end its process over a damaged file
        found = recognize(path)
        if found is None:
            hint = "phi3 models list shows what there is"
            raise Unobtainable(f"{device.backend} finds no weights in {path} that it can load", hint=hint)
        precision = found
        content = content or {"digest": fingerprint(path)}
    if precision not in precisions:
        raise Unobtainable(
            f"{path} holds {precision} weights, and {device} is to run {', '.join(precisions)}",
            hint="leave --precision out",
        )
    text = path
    if path.is_file():
        text = _gguf_text(path, content, store)
        content = {**(manifest.read(text) or {}), **content}
    artifact = Artifact(path=path, backend=device.backend, precision=precision, manifest=content)
    return Obtained(artifact=artifact, text=text, how=f"from {path}")


def take_in(name: str, found: Obtained, store: Store) -> Artifact:
    """Copy the user's own files into the store, where they are known by their name."""
    artifact = found.artifact

    def fill(folder: Path) -> Mapping[str, Any]:
        sources = [artifact.path] if artifact.path.is_file() else sorted(artifact.path.iterdir())
        for file in (*sources, *(sorted(found.text.iterdir()) if found.text != artifact.path else ())):
            if file.is_file() and file.name != manifest.NAME:
                shutil.copyfile(file, folder / file.name)
        kept = ("source", "revision", "recipe", "quality", "context_length")
        return {key: artifact.manifest[key] for key in kept if key in artifact.manifest}

    return store.make_artifact(name, Form(backend=artifact.backend, precision=artifact.precision), fill)


def fingerprint(path: Path) -> str:
    """A word that changes when a file, or a file of a folder, does; without reading gigabytes."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if _matters(file))
    digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape"))
    for file in files:
        with contextlib.suppress(OSError):
            state = file.stat()
            digest.update(f"{file.name} {state.st_size} {state.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _matters(file: Path) -> bool:
    """Whether a model is another one when this file is another: folders and what is there for people do not count."""
    return file.is_file() and file.suffix.lower() not in {".md", ".txt"} and not file.name.startswith((".", "LICENSE"))


def _gguf_text(file: Path, content: Mapping[str, Any], store: Store) -> Path:
    def fill(folder: Path) -> Mapping[str, Any]:
        gguf = Gguf.open(file)
        gguf.write_tokenizer(folder)
        return {"context_length": gguf.describe().context_length}

    return store.derive(content["digest"], "core-text", fill)

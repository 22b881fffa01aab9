"""Resolve the value of ``--model`` to a model, hub repository or path."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import re
from pathlib import Path
from typing import Literal

from attrs import frozen

from phi3_core import paths
from phi3_core.errors import ModelError
from phi3_core.store import manifest
from phi3_core.store.store import Store

from .catalogue import CATALOGUE

# OWNER/NAME, with the characters that the hub allows.
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
HINT = "phi3 models list shows the available models"


@frozen(kw_only=True)
class ModelRef:
    """A reference to a model, resolved from what the user named."""

    name: str
    form: Literal["named", "hub", "artifact", "source"]
    """``named``: in the catalogue or the store; ``hub``: a repository; ``artifact``, ``source``: a user's path."""
    path: Path | None = None
    """The user's path, if any."""
    repository: str | None = None
    """The hub repository, if the model is not in the catalogue."""

    @property
    def store_name(self) -> str:
        """The name of the model's artifacts in the store; for a path, it contains the fingerprint."""
        return self.name if self.path is None else f"{self.name}-{fingerprint(self.path)[:8]}"


def look_up(word: str, store: Store) -> ModelRef:
    """Return the model that a value of ``--model`` refers to, without loading it.

    Names in the catalogue or the store take precedence over folders of the same name, which can be written ``./name``.

    Raises:
        ModelError: the model is unknown, or the path has no model.
    """
    if not word.strip():
        raise ModelError("the model's name is empty", hint=HINT)
    if word in CATALOGUE or store.knows(word):
        return ModelRef(name=word, form="named")
    path = Path(word).expanduser()
    if path.exists():
        return _local(path.resolve())
    for known in CATALOGUE.values():
        if known.repository is not None and word.casefold() == known.repository.casefold():
            return ModelRef(name=known.name, form="named")
    if _HUB_ID.fullmatch(word):
        return ModelRef(name=word.replace("/", "--"), form="hub", repository=word)
    if "/" in word or "\\" in word or word.startswith("."):
        raise ModelError(f"there is no file or folder {word!r}", hint=HINT)
    close = difflib.get_close_matches(word, CATALOGUE, n=1, cutoff=0.5)
    raise ModelError(f"unknown model {word!r}", hint=f"did you mean {close[0]}?" if close else HINT)


def _local(path: Path) -> ModelRef:
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(f"{path} is neither a model folder nor a GGUF file", hint="name the folder it lies in")
        return ModelRef(name=path.stem, form="artifact", path=path)
    if (path / manifest.NAME).is_file() and not _is_source(path):
        return ModelRef(name=path.name, form="artifact", path=path)
    is_source = any(path.glob("*.safetensors"))
    _check_family(path, needed=is_source)
    if is_source:
        return ModelRef(name=path.name, form="source", path=path)
    if not any(path.iterdir()):
        raise ModelError(f"the folder {path} is empty", hint=HINT)
    return ModelRef(name=path.name, form="artifact", path=path)


def _is_source(path: Path) -> bool:
    """Return whether a folder's manifest describes original weights: it has no backend."""
    content = paths.read_json(path / manifest.NAME)
    return isinstance(content, dict) and "backend" not in content


def _check_family(path: Path, *, needed: bool) -> None:
    """Raise if ``config.json`` names another model family or, if it is ``needed``, none."""
    config = paths.read_json(path / "config.json")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind is None and needed:
        raise ModelError(f"{path} has weights, but no config.json that says of which kind", hint=HINT)
    if kind not in {None, "phi3"}:
        raise ModelError(f"{path} is a model of type {kind!r}, not of the Phi-3 family", hint=HINT)


def fingerprint(path: Path) -> str:
    """Return a digest of the names, sizes and times of a file or of the files in a folder, without reading them."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if _matters(file))
    digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape"))
    for file in files:
        with contextlib.suppress(OSError):
            state = file.stat()
            digest.update(f"{file.name} {state.st_size} {state.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _matters(file: Path) -> bool:
    """Return whether a file is part of the model: not folders, hidden files, documentation and licences."""
    return file.is_file() and file.suffix.lower() not in {".md", ".txt"} and not file.name.startswith((".", "LICENSE"))

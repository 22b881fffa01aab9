"""What the word after ``--model`` means."""

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

# OWNER/NAME, of characters that the hub allows.
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
HINT = "phi3 models list shows what there is"


@frozen(kw_only=True)
class ModelRef:
    """What the user named: a model, before it is known in which form it is available."""

    name: str
    form: Literal["named", "hub", "artifact", "source"]
    """``named``: of the catalogue or the store; ``hub``: a repository; the others: a path of the user's."""
    path: Path | None = None
    repository: str | None = None
    """The hub's name for it, of one that is not in the catalogue."""

    @property
    def store_name(self) -> str:
        """The name under which the store keeps artifacts of the model; of a path, with its fingerprint."""
        return self.name if self.path is None else f"{self.name}-{fingerprint(self.path)[:8]}"


def look_up(word: str, store: Store) -> ModelRef:
    """Return what a word after ``--model`` means, without loading anything.

    A name of the catalogue or the store wins over a folder of the same name, which can be written ``./name``.

    Raises:
        ModelError: nothing is known by that word, or the path holds nothing that could be a model.
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
    """Whether a folder's manifest is one of original weights, which are of no backend."""
    content = paths.read_json(path / manifest.NAME)
    return isinstance(content, dict) and "backend" not in content


def _check_family(path: Path, *, needed: bool) -> None:
    """Refuse a folder whose ``config.json`` names another family, or, if it is ``needed``, names none."""
    config = paths.read_json(path / "config.json")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind is None and needed:
        raise ModelError(f"{path} has weights, but no config.json that says of which kind", hint=HINT)
    if kind not in {None, "phi3"}:
        raise ModelError(f"{path} is a model of type {kind!r}, not of the Phi-3 family", hint=HINT)


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

"""Resolve the value of ``--model`` to a model, hub repository or path."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import re
from pathlib import Path, PureWindowsPath
from typing import Literal

from attrs import frozen

from phi3_core import names, paths
from phi3_core.checkpoint import gguf_parts
from phi3_core.disk import reason
from phi3_core.errors import ModelError
from phi3_core.store import manifest
from phi3_core.store.store import Store

from .catalogue import CATALOGUE

# OWNER/NAME, with the characters that the hub allows. It has no names with "--", which separates the two in the store.
_HUB_ID = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][A-Za-z0-9_-]*/[A-Za-z0-9][A-Za-z0-9._-]*(?<![.-])")
_LONGEST_HUB_ID = 96
_LONGEST_STORE_NAME = 48
"""Size limit in bytes of the part of a path's store name that comes from the path."""
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
        """The name of the model's artifacts in the store; for a path, it contains the fingerprint.

        Every system can store it, whatever the folder or file is called.
        """
        if self.path is None:
            return self.name
        return f"{names.storable(self.name, longest=_LONGEST_STORE_NAME)}-{fingerprint(self.path)[:8]}"


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
    if (path := _existing_path(word)) is not None:
        return _local(path)
    for known in CATALOGUE.values():
        if known.repository is not None and word.casefold() == known.repository.casefold():
            return ModelRef(name=known.name, form="named")
    if _HUB_ID.fullmatch(word) and len(word) <= _LONGEST_HUB_ID:
        name = word.replace("/", "--")
        # The hub does not tell names apart that differ by case only.
        return ModelRef(name=store.known_variant(name) or name, form="hub", repository=word)
    if "/" in word or "\\" in word or word.startswith("."):
        raise ModelError(f"there is no file or folder {word!r}", hint=HINT)
    close = difflib.get_close_matches(word.casefold(), CATALOGUE, n=1, cutoff=0.5)
    raise ModelError(f"unknown model {word!r}", hint=f"did you mean {close[0]}?" if close else HINT)


def _existing_path(word: str) -> Path | None:
    """Return the absolute path that a word names, or None if nothing exists there.

    Raises:
        ModelError: the path cannot be read, or Windows takes it for a device.
    """
    if os.name == "nt" and names.is_device(PureWindowsPath(word).name):  # before it is opened, which may take for ever
        raise ModelError(f"{word!r} is a device of Windows, not a file or folder", hint=HINT)
    try:
        path = Path(word).expanduser()
        if not path.exists():
            return None
        # A link to a file keeps its name: in the hub's cache the file has no suffix, and no other parts beside it.
        return path.resolve() if path.is_dir() else path.parent.resolve() / path.name
    except (OSError, RuntimeError, ValueError) as error:  # no such user, a loop of links, a null character
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise ModelError(f"{word!r} cannot be read: {why}", hint=HINT) from error


def _local(path: Path) -> ModelRef:
    if not path.is_file() and not path.is_dir():
        raise ModelError(f"{path} is neither a file nor a folder", hint=HINT)
    if path.is_file():
        if not gguf_parts.is_gguf(path):
            raise ModelError(f"{path} is neither a model folder nor a GGUF file", hint="name the folder it lies in")
        return ModelRef(name=_readable(gguf_parts.stem(path)), form="source", path=gguf_parts.parts(path)[0])
    if (path / manifest.NAME).is_file() and not _is_source(path):
        return ModelRef(name=_readable(path.name), form="artifact", path=path)
    if (file := gguf_parts.only_model_in(path)) is not None:
        return ModelRef(name=_readable(path.name), form="source", path=file)
    is_source = any(path.glob("*.safetensors"))
    _check_family(path, needed=is_source)
    if is_source:
        return ModelRef(name=_readable(path.name), form="source", path=path)
    if not any(path.iterdir()):
        raise ModelError(f"the folder {path} is empty", hint=HINT)
    return ModelRef(name=_readable(path.name), form="artifact", path=path)


def _readable(name: str) -> str:
    """Return a name that can be written as UTF-8, which names of files need not be."""
    return os.fsencode(name).decode("utf-8", "replace")


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
    """Return a digest of the names, sizes and times of a file's parts or of a folder's files, without reading them."""
    files = sorted(file for file in path.iterdir() if _matters(file)) if path.is_dir() else gguf_parts.parts(path)
    digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape"))
    for file in files:
        with contextlib.suppress(OSError):
            state = file.stat()
            digest.update(f"{file.name} {state.st_size} {state.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _matters(file: Path) -> bool:
    """Return whether a file is part of the model: not folders, hidden files, documentation and licences."""
    return file.is_file() and file.suffix.lower() not in {".md", ".txt"} and not file.name.startswith((".", "LICENSE"))

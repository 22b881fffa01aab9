"""Resolve the value of ``--model`` to a model, hub repository or path."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import itertools
import os
from pathlib import Path, PureWindowsPath
from typing import Literal

from attrs import evolve, frozen

from phi3_core import names, paths
from phi3_core.checkpoint import gguf_parts, pointers
from phi3_core.checkpoint.architecture import read_config
from phi3_core.checkpoint.contents import unusable, weight_files
from phi3_core.checkpoint.family import check_type
from phi3_core.config.values import aliases
from phi3_core.disk import reason
from phi3_core.errors import ModelError
from phi3_core.hub.address import Address, parse
from phi3_core.hub.cache import path_in_cache, repository_name
from phi3_core.hub.contents import choices, is_gguf, is_weights, parts, shown
from phi3_core.store import manifest
from phi3_core.store.store import Store

from . import ollama
from .aliases import expand
from .catalogue import CATALOGUE

_LONGEST_HUB_NAME = 96
"""Size limit in bytes of the store name of a repository, or of a folder or file of it."""
_LONGEST_STORE_NAME = 48
"""Size limit in bytes of the part of a path's store name that comes from the path."""
_FILES_AT_MOST = 20_000
"""How many files below a folder are looked at for weights: the folder may be anything."""
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
    revision: str | None = None
    """The repository's commit, branch or tag, if one was named."""
    subpath: str = ""
    """The folder or GGUF file of the repository, if one was named."""

    @property
    def address(self) -> Address | None:
        """Where the original weights are on the hub; None if they are not there."""
        known = CATALOGUE.get(self.name) if self.form == "named" else None
        repository = known.repository if known else self.repository
        if repository is None:
            return None
        return Address(repository=repository, revision=self.revision, path=self.subpath)

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

    Names in the catalogue or the store take precedence over folders of the same name, which can be written ``./name``,
    and so do the user's aliases.

    Raises:
        ModelError: the model is unknown, or the path has no model.
        UsageError: it is an alias in a circle, or the configuration file cannot be read.
    """
    if not word.strip():
        raise ModelError("the model's name is empty", hint=HINT)
    word = expand(word)
    if word in CATALOGUE or store.knows(word):
        return ModelRef(name=word, form="named")
    if (path := _existing_path(word)) is not None:
        return _local(path)
    if (address := parse(word)) is not None:
        return _of_address(address, store)
    if "/" in word or "\\" in word or word.startswith("."):
        raise ModelError(f"there is no file or folder {word!r}", hint=HINT)
    close = _close(word)
    raise ModelError(f"unknown model {word!r}", hint=f"did you mean {close}?" if close else HINT)


def _close(word: str) -> str | None:
    """Return the known name that an unknown one may stand for: ``phi3`` and Ollama's ``phi3:latest`` begin one."""
    known = [*CATALOGUE, *aliases()]
    for beginning in (word, word.partition(":")[0]):
        short = _squeezed(beginning)
        if len(short) > 3 and (found := [name for name in known if _squeezed(name).startswith(short)]):
            return next((name for name in found if _squeezed(name) == short), found[0])
    return next(iter(difflib.get_close_matches(word.casefold(), known, n=1, cutoff=0.5)), None)


def _squeezed(name: str) -> str:
    """Return a name without its case and what stands between its words; the point of a version counts."""
    return "".join(letter for letter in name.casefold() if letter.isalnum() or letter == ".")


def stored_name(word: str, store: Store) -> str:
    """Return the name under which the store has what a user's word means; the word itself if it means nothing."""
    try:
        return look_up(word, store).store_name
    except ModelError:
        return word


def _of_address(address: Address, store: Store) -> ModelRef:
    for known in CATALOGUE.values():
        if known.repository is not None and str(address).casefold() == known.repository.casefold():
            return ModelRef(name=known.name, form="named")
    if is_gguf(address.path):
        address = evolve(address, path=parts(address.path)[0])  # one file, whichever of its parts is named
    name = _hub_name(address)
    return ModelRef(
        # The hub does not tell names apart that differ by case only.
        name=store.known_variant(name) or name,
        form="hub",
        repository=address.repository,
        revision=address.revision,
        subpath=address.path,
    )


def _hub_name(address: Address) -> str:
    """Return the store name of what an address means; with a digest if it is shortened or could mean something else."""
    text = "--".join(filter(None, (*address.repository.split("/"), *address.path.split("/"))))
    text = f"{text}@{address.revision}" if address.revision else text
    name = names.storable(text, longest=_LONGEST_HUB_NAME)
    ambiguous = "--" in address.path or "@" in address.path or name != text
    if not ambiguous:
        return name
    digest = hashlib.sha256(str(address).encode()).hexdigest()[:8]
    return f"{names.storable(text, longest=_LONGEST_HUB_NAME - 9)}-{digest}"


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
    if (model := ollama.find(path)) is not None:
        return evolve(_local_model(model[1]), name=_readable(model[0]))
    cached = path_in_cache(path)
    path = path if cached is None else cached.path
    found = _local_model(path)
    if (name := _name_in_cache(path)) is None:
        return found
    return evolve(found, name=name)


def _name_in_cache(path: Path) -> str | None:
    """Return the name of a model in the hub's cache, where the folders' own names are commits; None elsewhere."""
    for folder in path.parents:
        if (repository := repository_name(folder)) is not None:
            inner = "/".join(path.relative_to(folder).parts[2:])
            return _hub_name(Address(repository=repository, path=inner))
    return None


def _local_model(path: Path) -> ModelRef:
    if not path.is_file() and not path.is_dir():
        raise ModelError(f"{path} is neither a file nor a folder", hint=HINT)
    try:
        pointers.check(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {reason(error)}", hint=HINT) from error
    if path.is_dir():
        return _local_folder(path)
    if not gguf_parts.is_gguf(path):
        raise ModelError(f"{path} is neither a model folder nor a GGUF file", hint="name the folder it lies in")
    return ModelRef(name=_readable(gguf_parts.stem(path)), form="source", path=gguf_parts.parts(path)[0])


def _local_folder(path: Path) -> ModelRef:
    if (path / manifest.NAME).is_file() and not _is_source(path):
        return ModelRef(name=_readable(path.name), form="artifact", path=path)
    names_there = [entry.name for entry in path.iterdir() if entry.is_file()]
    is_source = bool(weight_files(names_there))
    found = unusable(path.as_posix(), names_there, base=_base_of_adapter(path), sure=True)
    if found is not None:
        raise ModelError(f"{path} {found.words}", hint=found.hint)
    if (file := gguf_parts.only_model_in(path)) is not None:
        return ModelRef(name=_readable(path.name), form="source", path=file)
    _check_family(path, needed=is_source)
    if is_source:
        return ModelRef(name=_readable(path.name), form="source", path=path)
    if not any(path.iterdir()):
        raise ModelError(f"the folder {path} is empty", hint=HINT)
    if models := _models_below(path):
        what = "holds GGUF files" if all(map(is_gguf, models)) else "has its weights in folders"
        raise ModelError(f"{path} {what}: {shown(models)}", hint=f"name one of them: {path / models[0]}")
    return ModelRef(name=_readable(path.name), form="artifact", path=path)


def _readable(name: str) -> str:
    """Return a name that can be written as UTF-8, which names of files need not be."""
    return os.fsencode(name).decode("utf-8", "replace")


def _models_below(path: Path) -> list[str]:
    """Return the folders and GGUF files below a folder that has no weights itself, such as LM Studio's store."""
    if any(is_weights(each.name) or is_gguf(each.name) for each in path.iterdir()):
        return []
    files = (each.relative_to(path).as_posix() for depth in ("*", "*/*", "*/*/*") for each in path.glob(f"{depth}/*"))
    return choices(itertools.islice(files, _FILES_AT_MOST))


def _base_of_adapter(path: Path) -> str | None:
    """Return the name of the model that an adapter in a folder is for, if it says so."""
    config = paths.read_json(path / "adapter_config.json")
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    return name if isinstance(name, str) and name.isprintable() and 0 < len(name) < 200 else None


def _is_source(path: Path) -> bool:
    """Return whether a folder's manifest describes original weights: it has no backend."""
    content = paths.read_json(path / manifest.NAME)
    return isinstance(content, dict) and "backend" not in content


def _check_family(path: Path, *, needed: bool) -> None:
    """Raise if ``config.json`` names another model family or, if it is ``needed``, none."""
    file = path / "config.json"
    config = read_config(file) if needed and file.is_file() else paths.read_json(file)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind is None and needed:
        raise ModelError(f"{path} has weights, but no config.json that says of which kind", hint=HINT)
    if kind is not None:
        check_type(str(path), kind)


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

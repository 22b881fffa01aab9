"""The files of a repository at one commit, and which of them are needed and safe to download."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from phi3_core import names
from phi3_core.checkpoint.contents import is_adapter, weight_files
from phi3_core.errors import ModelError, NotOnHubError
from phi3_core.store import manifest

from . import contents

WANTED = (
    *("*.safetensors", "*.onnx", "*.onnx.data", "*.onnx_data", "openvino_*.xml", "openvino_*.bin"),
    *("*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"),
)
LICENSE_FILES = ("license*", "licence*", "notice*", "readme.md")
LICENSE_FILE_LIMIT = 2**20
NEVER = ("*.py", "*.pyc", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.so", "*.dll", "*.dylib", manifest.NAME)
"""Code, pickles (which can run code), and the store's own manifest."""

UNKNOWN = -1

_PATH_AT_MOST = 400
_MIRROR = "if HF_ENDPOINT names a mirror, use another or none"


@frozen(kw_only=True)
class RemoteFile:
    """A file of a repository. Large files have ``sha256``, the others only git's blob hash, ``git_oid``.

    Some mirrors tell neither.
    """

    name: str
    size: int
    """Bytes; :data:`UNKNOWN` if a mirror does not tell, and the file is not among those that were requested."""
    sha256: str | None = None
    git_oid: str | None = None


@frozen(kw_only=True)
class Snapshot:
    """A repository at one commit."""

    repository: str
    commit: str
    folder: str = ""
    """The requested folder; empty for the root."""
    gguf: str = ""
    """The requested GGUF file, which lies in the folder; empty if the folder itself was requested."""
    files: tuple[RemoteFile, ...]
    """All files of the repository."""

    def local_name(self, file: RemoteFile) -> str:
        """Return the path of a file below the destination, which corresponds to the requested folder."""
        return file.name.removeprefix(f"{self.folder}/") if self.folder else file.name


def take_snapshot(
    repository: str, revision: str | None = None, path: str = "", *, offline: bool = False, tries: int = 3
) -> Snapshot:
    """Return the files of a repository, with the revision (None is the newest) resolved to a commit.

    Args:
        repository: ``OWNER/NAME``.
        revision: a commit, branch or tag; None for the newest commit.
        path: the folder or GGUF file that is needed; empty for the root.
        offline: the value of ``--offline``.
        tries: how often the hub is asked while it cannot be reached.

    Raises:
        NotOnHubError: the repository, revision, folder or file does not exist.
        ModelError: the hub cannot be reached, or access is denied.
    """
    from .client import HubClient, retrying  # start-up: selecting files needs no client

    client = HubClient(repository, revision, offline=offline)
    commit, entries = retrying(client.listing, tries=tries)
    path = path.strip("/")
    names = [_name_of(repository, entry) for entry in entries]
    folder, gguf = requested(repository, commit, path, names)
    client = client.at(commit)
    files = []
    for name, entry in zip(names, entries, strict=True):
        file = _remote_file(name, entry)
        if not _is_described(file) and (name in contents.parts(gguf) if gguf else _is_wanted(name, folder, ())):
            check_name(name)
            size, etag = retrying(functools.partial(client.inspect, name))
            file = _described(repository, file, size, etag)
        files.append(file)
    return Snapshot(repository=repository, commit=commit, folder=folder, gguf=gguf, files=tuple(files))


def requested(repository: str, commit: str, path: str, names: Sequence[str]) -> tuple[str, str]:
    """Return the requested folder, and the requested GGUF file, if ``path`` is one.

    Raises:
        NotOnHubError: ``path`` is neither a folder nor a GGUF file.
    """
    if path in names:
        if not contents.is_gguf(path):
            folder = contents.folder_of(path)
            raise NotOnHubError(
                f"{path} is one file of {repository}, not a model",
                hint=f"name the repository: {repository}{'/' + folder if folder else ''}",
            )
        if absent := [part for part in contents.parts(path) if part not in names]:
            raise NotOnHubError(f"{repository} has no {absent[0]}, a part of {path}", hint="use another repository")
        return contents.folder_of(path), path
    if path and not any(name.startswith(f"{path}/") for name in names):
        if contents.is_gguf(path):
            there, kind = contents.gguf_files(names), "file"
        else:
            there, kind = sorted({contents.folder_of(name) for name in names} - {""}), "folder"
        hint = f"it has {contents.shown(there)}" if there else "all its files lie at its root"
        if contents.is_gguf(path) and not there:
            hint = "it has no GGUF files"
        raise NotOnHubError(f"{repository} at {commit[:12]} has no {kind} {path}", hint=hint)
    return path, ""


def select_files(files: Iterable[RemoteFile], folder: str = "", *, also: Sequence[str] = ()) -> tuple[RemoteFile, ...]:
    """Return the files that a model needs: weights in safe formats, configuration, tokenizer and licence.

    Of safetensors files, those that the checkpoint would be read from.

    Args:
        files: all files of a repository.
        folder: only files directly in this folder are selected.
        also: further patterns, such as ``*.gguf``; :data:`NEVER` takes precedence.

    Raises:
        ModelError: a file's name leads out of its folder, or a selected name cannot be stored on every system.
    """
    chosen = []
    for file in files:
        check_name(file.name, portable=False)
        is_too_large = file.size > LICENSE_FILE_LIMIT and not _matches(contents.base_name(file.name).lower(), WANTED)
        if _is_wanted(file.name, folder, also) and not (is_too_large and _is_license(file.name)):
            check_name(file.name)
            chosen.append(file)
    prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
    weights = {f"{prefix}{name}" for name in weight_files(file.name.removeprefix(prefix) for file in chosen)}
    return tuple(file for file in chosen if file.name in weights or not file.name.endswith(".safetensors"))


def _is_wanted(name: str, folder: str, also: Sequence[str]) -> bool:
    """Return whether a file is needed, by its name."""
    inner = contents.base_name(name).lower()
    is_needed = _is_license(name) or _matches(inner, (*WANTED, *also))
    is_refused = _matches(inner, NEVER) or is_adapter(inner)
    return contents.folder_of(name) == folder.strip("/") and is_needed and not is_refused


def _is_license(name: str) -> bool:
    return _matches(contents.base_name(name).lower(), LICENSE_FILES)


def check_name(name: str, *, portable: bool = True) -> None:
    """Check that a file name does not lead out of its folder and, if ``portable``, that every system can store it.

    Raises:
        ModelError: the name is invalid; the message quotes it.
    """
    if reason := _leads_out(name) or (_cannot_be_stored(name) if portable else None):
        quoted = ascii(name if len(name) <= 80 else f"{name[:60]}...{name[-16:]}")
        raise ModelError(f"the repository offers a file named {quoted}: {reason}", hint="use another repository")


def _leads_out(name: str) -> str | None:
    parts = name.split("/")
    if not name.isprintable():
        return "it has control characters"
    if "\\" in name or name.startswith("/") or name[1:2] == ":":
        return "a name must be relative, with forward slashes"
    if {"", ".", ".."} & set(parts):
        return "it leads out of its folder"
    return None


def _cannot_be_stored(name: str) -> str | None:
    if len(name.encode()) > _PATH_AT_MOST:
        return f"it is longer than {_PATH_AT_MOST} bytes"
    return next(filter(None, map(names.problem, name.split("/"))), None)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _name_of(repository: str, entry: Any) -> str:
    name = entry.get("rfilename") if isinstance(entry, dict) else None
    if not isinstance(name, str):
        raise ModelError(f"the hub does not tell the name of every file in {repository}", hint=_MIRROR)
    return name


def _remote_file(name: str, entry: Mapping[str, Any]) -> RemoteFile:
    """Return a file from the hub's entry for it, which may be incomplete on mirrors."""
    large = entry.get("lfs")
    large = large if isinstance(large, dict) else {}
    size, sha256, git_oid = large.get("size", entry.get("size")), large.get("sha256"), entry.get("blobId")
    return RemoteFile(
        name=name,
        size=size if isinstance(size, int) and size >= 0 else UNKNOWN,
        sha256=sha256 if _is_hash(sha256, 64) else None,
        git_oid=git_oid if _is_hash(git_oid, 40) and not large else None,  # of a large file it is the pointer's
    )


def _is_described(file: RemoteFile) -> bool:
    return file.size != UNKNOWN and bool(file.sha256 or file.git_oid)


def _described(repository: str, file: RemoteFile, size: int | None, etag: str) -> RemoteFile:
    """Return a file with what the answer to a request for it tells."""
    if file.size == UNKNOWN and size is None:
        raise ModelError(f"the hub does not tell the size of {file.name} in {repository}", hint=_MIRROR)
    return evolve(
        file,
        size=file.size if size is None else size,
        sha256=etag if _is_hash(etag, 64) else file.sha256,
        git_oid=etag if _is_hash(etag, 40) else file.git_oid,
    )


def _is_hash(value: Any, length: int) -> bool:
    return isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{length}}}", value) is not None

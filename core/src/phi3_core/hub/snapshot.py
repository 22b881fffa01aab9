"""The files of a repository at one commit, and which of them are needed and safe to download."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import frozen

from phi3_core import names
from phi3_core.checkpoint.contents import weight_files
from phi3_core.errors import ModelError, NotOnHubError
from phi3_core.store import manifest

WANTED = (
    *("*.safetensors", "*.onnx", "*.onnx.data", "*.onnx_data", "openvino_*.xml", "openvino_*.bin"),
    *("*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"),
)
LICENSE_FILES = ("license*", "licence*", "notice*", "readme.md")
LICENSE_FILE_LIMIT = 2**20
NEVER = ("*.py", "*.pyc", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.so", "*.dll", "*.dylib", manifest.NAME)
"""Code, pickles (which can run code), and the store's own manifest."""

_PATH_AT_MOST = 400


@frozen(kw_only=True)
class RemoteFile:
    """A file of a repository. Large files have ``sha256``, the others only git's blob hash, ``git_oid``."""

    name: str
    size: int
    sha256: str | None = None
    git_oid: str | None = None


@frozen(kw_only=True)
class Snapshot:
    """A repository at one commit."""

    repository: str
    commit: str
    folder: str = ""
    """The requested folder; empty for the root."""
    files: tuple[RemoteFile, ...]
    """All files of the repository."""

    def local_name(self, file: RemoteFile) -> str:
        """Return the path of a file below the destination, which corresponds to the requested folder."""
        return file.name.removeprefix(f"{self.folder}/") if self.folder else file.name


def take_snapshot(repository: str, revision: str | None = None, folder: str = "", *, offline: bool = False) -> Snapshot:
    """Return the files of a repository, with the revision (None is the newest) resolved to a commit.

    Raises:
        NotOnHubError: the repository, revision or folder does not exist.
        ModelError: the hub cannot be reached, or access is denied.
    """
    from .client import HubClient, Retry, TransientError  # start-up: selecting files needs no client

    client = HubClient(repository, revision, offline=offline)
    retry = Retry(tries=3, wait=time.sleep)
    while True:
        try:
            commit, entries = client.listing()
            break
        except TransientError as error:
            retry.spend(error)
    folder = folder.strip("/")
    files = tuple(_remote_file(repository, entry) for entry in entries)
    if folder and not any(file.name.startswith(f"{folder}/") for file in files):
        there = sorted({file.name.rpartition("/")[0] for file in files} - {""})
        hint = f"it has {', '.join(there[:8])}" if there else "all its files lie at its root"
        raise NotOnHubError(f"{repository} at {commit[:12]} has no folder {folder}", hint=hint)
    return Snapshot(repository=repository, commit=commit, folder=folder, files=files)


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
    prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
    chosen = []
    for file in files:
        check_name(file.name, portable=False)
        inner = file.name.removeprefix(prefix).lower() if file.name.startswith(prefix) else "/"
        is_paper = _matches(inner, LICENSE_FILES) and file.size <= LICENSE_FILE_LIMIT
        if "/" not in inner and (is_paper or _matches(inner, (*WANTED, *also))) and not _matches(inner, NEVER):
            check_name(file.name)
            chosen.append(file)
    weights = {f"{prefix}{name}" for name in weight_files(file.name.removeprefix(prefix) for file in chosen)}
    return tuple(file for file in chosen if file.name in weights or not file.name.endswith(".safetensors"))


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


def _remote_file(repository: str, entry: Any) -> RemoteFile:
    """Return a file from the hub's entry for it, which may be incomplete on mirrors."""
    try:
        large = entry.get("lfs") or {}
        name, size = entry["rfilename"], large.get("size", entry.get("size"))
        file = RemoteFile(name=str(name), size=int(size), sha256=large.get("sha256"), git_oid=entry.get("blobId"))
    except (AttributeError, KeyError, TypeError, ValueError):
        file = None
    if file is None or file.size < 0 or not (file.sha256 or (file.git_oid and not large)):
        raise ModelError(
            f"the hub does not tell name, size and hash of every file in {repository}",
            hint="if HF_ENDPOINT names a mirror, use another or none",
        )
    return file

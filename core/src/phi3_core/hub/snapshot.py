"""What a repository on the Hugging Face hub holds, and which of it is needed and safe to have."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import frozen

from phi3_core.errors import ModelError, NotOnHubError
from phi3_core.store import manifest

WANTED = (
    *("*.safetensors", "*.onnx", "*.onnx.data", "*.onnx_data", "openvino_*.xml", "openvino_*.bin"),
    *("*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"),
)
LICENSE_FILES = ("license*", "licence*", "notice*", "readme.md")
LICENSE_FILE_LIMIT = 2**20
NEVER = ("*.py", "*.pyc", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.so", "*.dll", "*.dylib", manifest.NAME)
"""Code, what unpickles into code, and the name under which the store notes what it knows itself."""

_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{port}{n}" for port in ("com", "lpt") for n in range(10)
}
_NAME_AT_MOST = 200
_PATH_AT_MOST = 400


@frozen(kw_only=True)
class RemoteFile:
    """A file of a repository. Large ones have a ``sha256``, the others only git's hash of the content."""

    name: str
    size: int
    sha256: str | None = None
    git_oid: str | None = None


@frozen(kw_only=True)
class Snapshot:
    """A repository at one commit. ``files`` are all that it offers, ``folder`` the one that was asked for."""

    repository: str
    commit: str
    folder: str = ""
    files: tuple[RemoteFile, ...]

    def local_name(self, file: RemoteFile) -> str:
        """Where a file goes below the destination: the asked-for folder is its root."""
        return file.name.removeprefix(f"{self.folder}/") if self.folder else file.name


def take_snapshot(repository: str, revision: str | None = None, folder: str = "", *, offline: bool = False) -> Snapshot:
    """Ask the hub what ``repository`` holds. The revision (None is the newest) is resolved to a commit here, once.

    Raises:
        ModelError: the hub cannot be asked, has no such repository, revision or folder, or does not give it to us.
    """
    from .client import HubClient, Retry, TransientError  # start-up: choosing files needs no client

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
    """The files directly in ``folder`` that a model needs: weights without code in them, settings, tokenizer, licence.

    ``also`` adds patterns such as ``*.gguf``; what could run as code is not to be had that way either.

    Raises:
        ModelError: the repository has a name in it that would lead out of a folder, or one that we want and that
            not every system can store.
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
    return tuple(chosen)


def check_name(name: str, *, portable: bool = True) -> None:
    """Refuse a name that would lead out of the folder it is put in, or (``portable``) that some system cannot store.

    Raises:
        ModelError: quoting the name.
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
    parts = name.split("/")
    if len(name.encode()) > _PATH_AT_MOST or any(len(part.encode()) > _NAME_AT_MOST for part in parts):
        return "it is too long"
    if any(part.partition(".")[0].rstrip().lower() in _DEVICES or part[-1] in ". " for part in parts):
        return "Windows keeps such names for itself"
    if set('<>:"|?*') & set(name):
        return "Windows has no such names"
    return None


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _remote_file(repository: str, entry: Any) -> RemoteFile:
    """What the hub says of one file, which mirrors of it may leave incomplete."""
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

"""Fetch models from the hub: select and check the files, download them, and record their origin."""

from __future__ import annotations

import fnmatch
import tempfile
from pathlib import Path
from typing import Any

from phi3_core.checkpoint.contents import unusable
from phi3_core.checkpoint.family import check_type
from phi3_core.errors import ModelError, NotOnHubError
from phi3_core.files import discard_tree, unlink
from phi3_core.paths import read_json
from phi3_core.store import manifest
from phi3_core.store.entry import Entry, removal_hint
from phi3_core.store.store import PARTIAL
from phi3_core.values import Progress

from . import download
from .snapshot import Snapshot, select_files, take_snapshot

_WEIGHTS = ("*.safetensors", "*.onnx", "openvino_*.bin")
_TEXT = "tokenizer.json"
_SMALL = 2**20


def listed(repository: str, revision: str | None, folder: str, *, offline: bool) -> tuple[Snapshot, Any]:
    """Return a snapshot, and those of its files that a model needs.

    Raises:
        NotOnHubError: the repository, revision or folder does not exist, or has no weights or no tokenizer.
        ModelError: the hub cannot be reached, or access is denied.
    """
    snapshot = take_snapshot(repository, revision, folder, offline=offline)
    files = select_files(snapshot.files, folder)
    names = [snapshot.local_name(file) for file in files]
    where = f"{repository}{'/' + folder if folder else ''} at {snapshot.commit[:12]}"
    found = unusable(repository, map(snapshot.local_name, snapshot.files))
    if found is not None:
        raise NotOnHubError(f"{where} {found.words}", hint=found.hint)
    if not any(fnmatch.fnmatch(name, pattern) for name in names for pattern in _WEIGHTS):
        raise NotOnHubError(f"{where} holds no weights in a form that is safe to load", hint="use another repository")
    if _TEXT not in names:
        raise NotOnHubError(f"{where} holds no {_TEXT}", hint="use another repository")
    return snapshot, files


def fill(snapshot: Snapshot, files: Any, folder: Path, progress: Progress, *, offline: bool) -> dict[str, Any]:
    """Download ``files`` into ``folder`` and return the facts for its manifest."""
    names = {snapshot.local_name(file) for file in files}
    for left in folder.iterdir():  # from an interrupted pull of another commit
        if left.is_file() and left.name not in names:
            unlink(left)
    (folder / PARTIAL).mkdir(exist_ok=True)
    download.download(snapshot, files, folder, progress, offline=offline)
    (folder / PARTIAL).mkdir(exist_ok=True)  # kept until the folder is visible, so that a failure keeps the files
    return {
        "source": {"repository": snapshot.repository, "folder": snapshot.folder},
        "revision": snapshot.commit,
        "hashes": {snapshot.local_name(file): file.sha256 for file in files if file.sha256},
    }


def forget(folder: Path) -> None:
    """Mark the files downloaded into ``folder`` as useless, so that they are deleted when making it fails."""
    discard_tree(folder / PARTIAL)


def model_type(snapshot: Snapshot, *, offline: bool) -> str:
    """Return ``model_type`` of the repository's ``config.json``, the only file that is downloaded.

    Raises:
        NotOnHubError: the file does not exist or has no model type.
    """
    config = [file for file in snapshot.files if file.name == "config.json" and file.size < _SMALL]
    folder = Path(tempfile.mkdtemp(prefix="phi3-"))
    try:
        download.download(snapshot, config, folder, lambda *_: None, offline=offline)
        return str(read_json(folder / "config.json")["model_type"])
    except (KeyError, TypeError) as error:
        hint = "use another repository"
        raise NotOnHubError(f"{snapshot.repository} does not say what kind of model it holds", hint=hint) from error
    finally:
        discard_tree(folder)


def check_family(snapshot: Snapshot, *, offline: bool) -> None:
    """Check that a repository is of the Phi-3 family, before its weights are downloaded.

    Raises:
        ModelError: it is of another family, which the message names.
    """
    check_type(snapshot.repository, model_type(snapshot, offline=offline))


def from_hub(entry: Entry) -> bool:
    """Return whether the files of a store entry can be downloaded from the hub again."""
    repository = (entry.manifest.get("source") or {}).get("repository", "")
    return "/" in repository and ":" not in repository and bool(entry.manifest.get("revision"))


def repair(entry: Entry, progress: Progress) -> None:
    """Download the damaged files of a store entry again, at the same revision.

    Raises:
        ModelError: the entry did not come from the hub, or the hub does not deliver the files.
    """
    wrong = manifest.damaged(entry.path, entry.manifest)
    if not wrong:
        return
    if not from_hub(entry):
        hint = removal_hint(entry.model, entry.backend, entry.precision)
        raise ModelError(f"{entry.path} did not come from the hub and cannot be repaired", hint=hint)
    source = entry.manifest["source"]
    snapshot = take_snapshot(source["repository"], entry.manifest["revision"], source.get("folder", ""))
    files = [file for file in select_files(snapshot.files, snapshot.folder) if snapshot.local_name(file) in wrong]
    download.download(snapshot, files, entry.path, progress)

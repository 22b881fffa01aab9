"""Models from the hub: what to fetch, what it must hold, and what the manifest says about it."""

from __future__ import annotations

import fnmatch
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from phi3_core.errors import ModelError, NotOnHubError
from phi3_core.store import manifest
from phi3_core.store.store import PARTIAL, Entry, removal
from phi3_core.values import Progress

from . import download
from .snapshot import Snapshot, select_files, take_snapshot

_WEIGHTS = ("*.safetensors", "*.onnx", "openvino_*.bin")
_TEXT = "tokenizer.json"
_SMALL = 2**20


def listed(repository: str, revision: str | None, folder: str, *, offline: bool) -> tuple[Snapshot, Any]:
    """A snapshot, and those of its files that a model needs.

    Raises:
        MissingError: there is no such repository, revision or folder, or it holds no weights, or no tokenizer.
        ModelError: the hub cannot be asked.
    """
    snapshot = take_snapshot(repository, revision, folder, offline=offline)
    files = select_files(snapshot.files, folder)
    names = [snapshot.local_name(file) for file in files]
    where = f"{repository}{'/' + folder if folder else ''} at {snapshot.commit[:12]}"
    if not any(fnmatch.fnmatch(name, pattern) for name in names for pattern in _WEIGHTS):
        raise NotOnHubError(f"{where} holds no weights in a form that is safe to load", hint="use another repository")
    if _TEXT not in names:
        raise NotOnHubError(f"{where} holds no {_TEXT}", hint="use another repository")
    return snapshot, files


def fill(snapshot: Snapshot, files: Any, folder: Path, progress: Progress, *, offline: bool) -> dict[str, Any]:
    """Download ``files`` into ``folder`` and return what the manifest is to say."""
    names = {snapshot.local_name(file) for file in files}
    for left in folder.iterdir():  # of a pull that was killed, and meant another commit
        if left.is_file() and left.name not in names:
            left.unlink()
    (folder / PARTIAL).mkdir(exist_ok=True)
    download.download(snapshot, files, folder, progress, offline=offline)
    (folder / PARTIAL).mkdir(exist_ok=True)  # until the folder is published: gigabytes are not to be fetched twice
    return {
        "source": {"repository": snapshot.repository, "folder": snapshot.folder},
        "revision": snapshot.commit,
        "hashes": {snapshot.local_name(file): file.sha256 for file in files if file.sha256},
    }


def forget(folder: Path) -> None:
    """What has been downloaded into ``folder`` is of no use: let it go when the attempt fails."""
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)


def model_type(snapshot: Snapshot, *, offline: bool) -> str:
    """What the repository's ``config.json`` says it is; that file alone is fetched.

    Raises:
        MissingError: it does not say.
    """
    config = [file for file in snapshot.files if file.name == "config.json" and file.size < _SMALL]
    folder = Path(tempfile.mkdtemp(prefix="phi3-"))
    try:
        download.download(snapshot, config, folder, lambda *_: None, offline=offline)
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str(said["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "use another repository"
        raise NotOnHubError(f"{snapshot.repository} does not say what kind of model it holds", hint=hint) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_family(snapshot: Snapshot, *, offline: bool) -> None:
    """Refuse a repository of another family before its weights are downloaded.

    Raises:
        ModelError: naming what it is.
    """
    kind = model_type(snapshot, offline=offline)
    if kind != "phi3":
        raise ModelError(
            f"{snapshot.repository} is a model of type {kind!r}, not of the Phi-3 family", hint="phi3 models list"
        )


def from_hub(entry: Entry) -> bool:
    """Whether an entry's files can be had from the hub again."""
    repository = (entry.manifest.get("source") or {}).get("repository", "")
    return "/" in repository and ":" not in repository and bool(entry.manifest.get("revision"))


def repair(entry: Entry, progress: Progress) -> None:
    """Fetch those files of an entry of the store that are damaged, at the revision that it has.

    Raises:
        ModelError: it did not come from the hub, or the hub does not give it again.
    """
    wrong = manifest.damaged(entry.path, entry.manifest)
    if not wrong:
        return
    if not from_hub(entry):
        hint = removal(entry.model, entry.backend, entry.precision)
        raise ModelError(f"{entry.path} did not come from the hub and cannot be repaired", hint=hint)
    source = entry.manifest["source"]
    snapshot = take_snapshot(source["repository"], entry.manifest["revision"], source.get("folder", ""))
    files = [file for file in select_files(snapshot.files, snapshot.folder) if snapshot.local_name(file) in wrong]
    download.download(snapshot, files, entry.path, progress)

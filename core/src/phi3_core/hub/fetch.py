"""Fetch models from the hub: select and check the files, download them, and record their origin."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from attrs import evolve

from phi3_core.checkpoint import shards
from phi3_core.checkpoint.contents import INDEX, SINGLE
from phi3_core.checkpoint.family import check_task, check_type
from phi3_core.checkpoint.gguf_layout import check_header, check_layout
from phi3_core.checkpoint.gguf_tokenizer import check_kind, has_template
from phi3_core.checkpoint.leftovers import check_adapter, check_quantized
from phi3_core.checkpoint.quantized import quantization_method
from phi3_core.errors import ModelError, NotOnHubError
from phi3_core.files import discard_tree, unlink
from phi3_core.paths import read_json
from phi3_core.store import manifest, sidecars
from phi3_core.store.entry import Entry, removal_hint
from phi3_core.store.folders import PARTIAL
from phi3_core.text import foreign
from phi3_core.values import Progress

from . import cache, contents, download, peek
from .address import Address
from .client import offline_hint
from .snapshot import RemoteFile, Snapshot, select_files, take_snapshot

if TYPE_CHECKING:
    from phi3_core.checkpoint.architecture import Architecture

logger = logging.getLogger("phi3_core")

_TEXT = "tokenizer.json"
_SMALL = 2**20
_LARGEST_INDEX = 2**24
_OTHER = "use another repository"
_QUANTIZED = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
"""Files in which older quantizers (of GPTQ, AWQ and ModelOpt) tell what they did."""


def listed(address: Address, *, offline: bool, update: bool = False) -> tuple[Snapshot, tuple[RemoteFile, ...]]:
    """Return a snapshot, and those of its files that a model needs.

    What the hub's own cache holds whole is taken at the commit that it has, unless ``update`` asks for the newest.

    Raises:
        NotOnHubError: the repository, revision, folder or file does not exist, or has no weights or no tokenizer.
        ModelError: the hub cannot be reached, or access is denied.
    """
    snapshot = _snapshot(address, offline=offline, update=update)
    names = [file.name for file in snapshot.files]
    if snapshot.gguf:
        wanted = contents.parts(snapshot.gguf)
        return snapshot, tuple(file for file in snapshot.files if file.name in wanted)
    files = select_files(snapshot.files, snapshot.folder)
    where = f"{address} at {snapshot.commit[:12]}"
    if (found := contents.unusable_in(address.repository, names, snapshot.folder)) is not None:
        raise NotOnHubError(f"{where} {found.words}", hint=found.hint)
    if not any(contents.is_weights(file.name) for file in files):
        raise contents.no_weights(where, names, snapshot.folder, prefix=f"{address.repository}/")
    if not any(contents.base_name(file.name) == _TEXT for file in files):
        above = [file for file in select_files(snapshot.files) if file.name in sidecars.FILES]
        if not any(file.name == _TEXT for file in above):
            other = foreign.found_instead(contents.base_name(file.name) for file in snapshot.files)
            only = f", only {other}" if other else ""
            raise NotOnHubError(f"{where} holds no {_TEXT}{only}", hint=_OTHER)
        there = {contents.base_name(file.name) for file in files}
        files += tuple(file for file in above if file.name not in there)
    return snapshot, files


def cached(address: Address, *, offline: bool = False) -> bool:
    """Return whether the hub's own cache holds all that a model needs; offline, an older commit will do."""
    held = cache.find(address.repository, address.revision)
    if held is not None and held.lacks(address.path) and offline_hint(offline) is not None:
        held = _older(address, held)
    if held is None or held.lacks(address.path):
        return False
    names = [file.name for file in held.snapshot(address.path).files]
    return address.path in contents.weight_folders(names)


def _snapshot(address: Address, *, offline: bool, update: bool) -> Snapshot:
    held = cache.find(address.repository, address.revision)
    hint = offline_hint(offline)
    if held is None and hint is not None and (there := cache.commits(address.repository)):
        raise ModelError(
            f"the hub's cache holds {address.repository} at {contents.shown(there)}, "
            f"not at {address.revision or 'main'}, and offline mode is on",
            hint=f"name one of them, such as {evolve(address, revision=there[0])}, or {hint}",
        )
    if held is None or (update and hint is None):
        return take_snapshot(address.repository, address.revision, address.path, offline=offline)
    snapshot = held.snapshot(address.path)
    lacking = held.lacks(address.path)
    if lacking:
        what = f"{held.path} is not whole: {contents.shown(lacking)} {'is' if len(lacking) == 1 else 'are'} missing"
        failure = ModelError(f"{what}, and offline mode is on", hint=hint)
        if hint is None:
            logger.info("%s; completing it from the hub", what)
            try:
                return take_snapshot(address.repository, address.revision, address.path)
            except ModelError as error:
                what, failure = error.message, error
        if (older := _older(address, held)) is None:
            raise failure
        logger.info("%s; using the hub's cache in %s", what, older.path)
        return older.snapshot(address.path)
    if hint is None:
        try:  # what the cache does not tell, such as whether a chat template is missing
            return take_snapshot(address.repository, held.commit, address.path, tries=1)
        except ModelError as error:
            logger.info("%s; using the hub's cache in %s", error.message, held.path)
    return snapshot


def _older(address: Address, held: cache.CachedSnapshot) -> cache.CachedSnapshot | None:
    """Return the newest other commit that the hub's cache holds whole; None if there is none, or one was named."""
    return cache.other_whole(held, address.path) if address.revision is None else None


def fill(
    snapshot: Snapshot,
    files: Sequence[RemoteFile],
    folder: Path,
    progress: Progress,
    *,
    offline: bool,
    check: Callable[[Path], None] | None = None,
) -> dict[str, Any]:
    """Download ``files`` into ``folder`` and return the facts for its manifest.

    ``check``, if given, is called with the folder when it has the configuration and the tokenizer, before the weights.
    """
    names = {snapshot.local_name(file) for file in files}
    for left in folder.iterdir():  # from an interrupted pull of another commit
        if left.is_file() and left.name not in names:
            unlink(left)
    if check is not None and not (folder / PARTIAL).is_dir():  # else weights have been downloaded in part
        texts = [file for file in files if file.name.endswith((".json", ".jinja"))]
        download.download(snapshot, texts, folder, lambda *_: None, offline=offline)
        check(folder)
    (folder / PARTIAL).mkdir(exist_ok=True)
    taken = download.download(snapshot, files, folder, progress, offline=offline)
    if taken:
        logger.info("%d of %d files were taken from the hub's cache in %s", taken, len(files), cache.root())
    (folder / PARTIAL).mkdir(exist_ok=True)  # kept until the folder is visible, so that a failure keeps the files
    return {
        "source": {
            "repository": snapshot.repository,
            "folder": snapshot.folder,
            **({"gguf": contents.base_name(snapshot.gguf)} if snapshot.gguf else {}),
        },
        "revision": snapshot.commit,
        "hashes": {snapshot.local_name(file): file.sha256 for file in files if file.sha256},
    }


def forget(folder: Path) -> None:
    """Mark the files downloaded into ``folder`` as useless, so that they are deleted when making it fails."""
    discard_tree(folder / PARTIAL)


def _settings_file(snapshot: Snapshot) -> RemoteFile | None:
    """Return the repository's ``config.json``; None if there is none."""
    inner = f"{snapshot.folder}/config.json" if snapshot.folder else "config.json"
    there = {file.name: file for file in snapshot.files if 0 <= file.size < _SMALL}
    return there.get(inner) or there.get("config.json")


@contextlib.contextmanager
def _fetched(snapshot: Snapshot, files: Sequence[RemoteFile], *, offline: bool) -> Iterator[Path]:
    """Download small files, and yield the folder that has them until the end of the ``with`` block."""
    folder = Path(tempfile.mkdtemp(prefix="phi3-"))
    try:
        download.download(snapshot, files, folder, lambda *_: None, offline=offline)
        yield folder
    finally:
        discard_tree(folder)


def check_loadable(
    snapshot: Snapshot, files: Sequence[RemoteFile], *, offline: bool, chat: bool = False, core: bool = True
) -> None:
    """Check that a repository is of the Phi-3 family and not quantized in a form for others, before its weights.

    Besides its small files, the beginning of its weights is looked at.

    Args:
        snapshot: the repository.
        files: what is to be downloaded.
        offline: the value of ``--offline``.
        chat: whether the model is to answer, for which a GGUF file needs a chat template.
        core: whether core reads the weights. Settings that core does not support are left to others then.

    Raises:
        NotOnHubError: it does not tell what kind of model it holds.
        ModelError: it is of another family, classifies text, has an adapter that is not merged or no template, or its
            weights are quantized, incomplete, or other ones than ``config.json`` implies. The message says which.
    """
    if snapshot.gguf:
        _check_gguf(snapshot, files, offline=offline, chat=chat)
        return
    where = snapshot.repository
    file = _settings_file(snapshot)
    settings: dict[str, Any] = {}
    if file is not None:
        with _fetched(snapshot, [file], offline=offline) as folder:
            content = read_json(folder / snapshot.local_name(file))
        settings = content if isinstance(content, dict) else {}
    kind = settings.get("model_type")
    needs_settings = any(file.name.endswith(".safetensors") for file in files)
    if kind is None and needs_settings:
        raise NotOnHubError(f"{where} does not say what kind of model it holds", hint=_OTHER)
    if kind is not None:
        check_type(where, kind)
        check_task(where, settings)
    older = [name for name in _QUANTIZED if name in map(snapshot.local_name, files)]
    method = quantization_method(settings) or (older[0] if older else None)
    if method is not None and needs_settings:
        raise ModelError(
            f"{where} is quantized already ({method}), in a form that no backend loads",
            hint="name the repository with the original weights",
        )
    if needs_settings and file is not None:
        architecture = _architecture(PurePosixPath(where, file.name), settings, core=core)
        _check_tensors(snapshot, files, architecture, offline=offline)


def _architecture(path: PurePosixPath, settings: Mapping[str, Any], *, core: bool) -> Architecture | None:
    """Return what ``config.json`` describes; None if core does not support it, and does not have to."""
    from phi3_core.checkpoint.architecture import parse_architecture  # start-up: numpy, not needed for stored weights

    try:
        return parse_architecture(path, settings)
    except ModelError:
        if core:
            raise
        return None


def _check_gguf(snapshot: Snapshot, files: Sequence[RemoteFile], *, offline: bool, chat: bool) -> None:
    first = next(file for file in files if file.name == contents.parts(snapshot.gguf)[0])
    gguf = peek.gguf_header(snapshot, first, offline=offline)
    if gguf is None:
        return
    check_header(gguf, whole=len(files) == 1)
    check_kind(gguf)
    if len(files) == 1:
        check_layout(gguf)
    if chat and not has_template(gguf):
        raise ModelError(
            f"{gguf.path.as_posix()} has no chat template, as base models have none: it can be quantized and not be "
            "asked",
            hint="use a model that was tuned for chat",
        )


def _check_tensors(
    snapshot: Snapshot, files: Sequence[RemoteFile], architecture: Architecture | None, *, offline: bool
) -> None:
    """Check that the files and their tensors are those of the model, as far as an index and the headers tell.

    Without an architecture it is only checked that no adapter is left to be merged, and nothing is quantized.
    """
    where = PurePosixPath(snapshot.repository)
    weights = {contents.base_name(file.name): file for file in files if file.name.endswith(".safetensors")}
    places = {} if SINGLE in weights else _places(snapshot, files, weights, offline=offline)
    _check_names(where, places)
    tensors: dict[str, peek.RemoteTensor] = {}
    for name in sorted(set(places.values())) or sorted(weights):
        found = peek.tensors(snapshot, weights[name], offline=offline)
        if found is None:  # left to those who read the weights
            return
        tensors |= found
        _check_names(where, found)
    if architecture is not None:
        _check_roles(where, tensors, architecture)


def _check_names(where: PurePosixPath, names: Collection[str]) -> None:
    check_adapter(where, names)
    check_quantized(where, names)


def _places(
    snapshot: Snapshot, files: Sequence[RemoteFile], weights: Mapping[str, RemoteFile], *, offline: bool
) -> Mapping[str, str]:
    """Return the shard of each tensor, by the index; none if the index is too large to be looked at.

    Raises:
        ModelError: there is no index, or it is damaged, or names shards that the repository lacks.
    """
    index = next((file for file in files if contents.base_name(file.name) == INDEX), None)
    if index is None:
        where = PurePosixPath(snapshot.repository, snapshot.folder)
        raise shards.without_index(where, min(weights), hint=_OTHER)
    if not 0 <= index.size < _LARGEST_INDEX:
        return {}
    with _fetched(snapshot, [index], offline=offline) as folder:
        content = (folder / snapshot.local_name(index)).read_bytes()
    name = PurePosixPath(snapshot.repository, index.name)
    places = shards.read_index(name, content)
    shards.check_present(name, places, weights, hint=_OTHER)
    return places


def _check_roles(where: PurePosixPath, tensors: Mapping[str, peek.RemoteTensor], architecture: Architecture) -> None:
    """Check that tensors are those of the model, and no others."""
    from phi3_core.checkpoint import leftovers, roles  # start-up: numpy, not needed for stored weights

    taken = roles.take_roles(where, tensors, architecture)
    left = (tensor for name, tensor in tensors.items() if name not in taken)
    leftovers.check_leftovers(where, left, architecture.layers)


def preview(snapshot: Snapshot, files: Sequence[RemoteFile], check: Callable[[Path], None], *, offline: bool) -> None:
    """Call ``check`` with a folder that has the small files of a model and, in place of the others, empty ones.

    Nothing is done for original weights and GGUF files, which tell by themselves what they are.
    """
    if snapshot.gguf or any(file.name.endswith(".safetensors") for file in files):
        return
    small = [file for file in files if 0 <= file.size < _SMALL and not contents.is_weights(file.name)]
    with _fetched(snapshot, small, offline=offline) as folder:
        for file in files:
            (folder / snapshot.local_name(file)).touch()
        check(folder)


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
    path = "/".join(filter(None, (source.get("folder", ""), source.get("gguf", ""))))
    snapshot = take_snapshot(source["repository"], entry.manifest["revision"], path)
    described = entry.manifest["files"]
    files = [
        # The hash that the file had when it was downloaded, which some mirrors do not tell.
        evolve(file, sha256=described[local]["sha256"])
        for file in snapshot.files
        if (local := snapshot.local_name(file)) in wrong and local in described
    ]
    download.download(snapshot, files, entry.path, progress)

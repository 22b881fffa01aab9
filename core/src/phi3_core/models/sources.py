"""Obtain original weights: from the user's folder, the store, a package or the hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve

from phi3_core.errors import ModelError
from phi3_core.hub import contents
from phi3_core.store.store import Store
from phi3_core.values import Progress, Source

from . import gguf_source, sample, sample_package
from .ref import ModelRef, fingerprint
from .sample_package import obtain_package

if TYPE_CHECKING:
    from phi3_core.hub.address import Address
    from phi3_core.hub.snapshot import RemoteFile, Snapshot

PACKAGE = "package:"
"""Prefix of a Python package's name in place of a hub repository."""


def source_of(
    ref: ModelRef,
    store: Store,
    progress: Progress,
    *,
    offline: bool = False,
    update: bool = False,
    check: Callable[[Path], None] | None = None,
    chat: bool = False,
    core: bool = True,
) -> Source:
    """Return the original weights of a model; they are downloaded or built if necessary.

    Args:
        ref: the model.
        store: the store to look in and to write to.
        progress: called with the current stage.
        offline: use only files that are on this machine.
        update: download a newer revision from the hub, if there is one.
        check: called before weights that need no quantizing are downloaded, with a folder in which they are empty.
        chat: whether the model is to answer: a missing or damaged chat template is an error before the weights.
        core: whether core reads the weights, and not only a reference exporter, which supports more settings.

    Raises:
        ModelError: the weights are unknown, damaged, or cannot be obtained, or a GGUF file is not of the Phi-3 family.
        StoreError: the store cannot be written, or its disk is full.
    """
    source = _obtain(ref, store, progress, offline=offline, update=update, check=check, chat=chat, core=core)
    file = gguf_source.find(source.path)
    return source if file is None else gguf_source.as_source(file, source, store)


def _obtain(
    ref: ModelRef,
    store: Store,
    progress: Progress,
    *,
    offline: bool,
    update: bool,
    check: Callable[[Path], None] | None,
    chat: bool,
    core: bool,
) -> Source:
    if ref.path is not None:
        return Source(path=ref.path, model=ref.name, revision=fingerprint(ref.path)[:12])
    address = ref.address
    found = store.source(ref.name)
    if found is not None and not (update and address):
        return _named_file(found, ref)
    if ref.name == sample.NAME:

        def build(folder: Path) -> Mapping[str, Any]:
            package = obtain_package(store, progress, offline=offline)
            sample.build_source(package.file, folder, progress)
            return {"revision": package.version, "source": {"repository": f"{PACKAGE}{sample_package.PACKAGE}"}}

        return store.make_source(sample.NAME, build)
    if address is None:
        raise not_stored(ref)
    from phi3_core.hub import fetch  # start-up: not needed for stored weights

    snapshot, files = remote(ref, address, found, offline=offline, update=update, check=check, chat=chat, core=core)
    if found is not None and found.revision == snapshot.commit:
        return _named_file(found, ref)

    def fill(folder: Path) -> Mapping[str, Any]:
        early = partial(_check_text, str(address)) if chat and not snapshot.gguf else None
        return fetch.fill(snapshot, files, folder, progress, offline=offline, check=early)

    old = store.source_digest(ref.name)
    made = store.make_source(ref.name, fill, old=old)
    return _named_file(evolve(made, revision=snapshot.commit), ref)


def not_stored(ref: ModelRef) -> ModelError:
    """Return the error for original weights that are on no hub, and not in the store."""
    return ModelError(f"the original weights of {ref.name} are not in the store", hint="phi3 models show MODEL")


def remote(
    ref: ModelRef,
    address: Address,
    found: Source | None,
    *,
    offline: bool,
    update: bool = False,
    check: Callable[[Path], None] | None = None,
    chat: bool = False,
    core: bool = True,
) -> tuple[Snapshot, tuple[RemoteFile, ...]]:
    """Return a snapshot of original weights, and its files, after the checks that need none of the weights.

    Nothing is checked if the store has that snapshot as ``found``. Takes the other arguments of :func:`source_of`,
    and raises as it does.
    """
    from phi3_core.hub import fetch  # start-up: not needed for stored weights

    snapshot, files = fetch.listed(address, offline=offline, update=update)
    if ref.form == "hub" and (found is None or found.revision != snapshot.commit):
        fetch.check_loadable(snapshot, files, offline=offline, chat=chat, core=core)
        if check is not None:
            fetch.preview(snapshot, files, check, offline=offline)
    return snapshot, files


def _check_text(subject: str, folder: Path) -> None:
    """Raise :class:`ModelError` if the model in a folder, which need not have its weights, cannot be asked.

    The folder is the store's for what is not there yet: nobody is told its name.
    """
    from phi3_core.text.tokenizer import Tokenizer  # start-up: not needed for stored weights

    try:
        Tokenizer.from_folder(folder, subject=subject).check_chat()
    except ModelError as error:
        if str(folder) not in error.message:
            raise
        words = error.message.replace(f"{folder}{os.sep}", f"{subject}: ").replace(str(folder), subject)
        raise ModelError(words, hint="use another repository, or another revision of it") from error


def _named_file(source: Source, ref: ModelRef) -> Source:
    """Return a source with the path of the GGUF file, if one was named; else as it is."""
    return (
        evolve(source, path=source.path / contents.base_name(ref.subpath)) if contents.is_gguf(ref.subpath) else source
    )

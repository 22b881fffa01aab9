"""Show what would be downloaded, without downloading it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attrs import field, frozen

from phi3_core.disk import check_free
from phi3_core.hub.address import Address
from phi3_core.paths import home

from . import sample, sources

if TYPE_CHECKING:
    from pathlib import Path

    from phi3_core.hub.snapshot import RemoteFile, Snapshot
    from phi3_core.store.store import Store

    from .ref import ModelRef


@frozen(kw_only=True)
class PlannedFile:
    """A file of a repository, and its size in bytes."""

    name: str
    size: int


@frozen(kw_only=True)
class DownloadPlan:
    """The files of a repository to download; none if everything is on this machine."""

    words: str
    """Where the files come from, or why there are none, for display."""
    repository: str | None = None
    commit: str | None = None
    files: tuple[PlannedFile, ...] = ()
    size_bytes: int = field(init=False)

    @size_bytes.default
    def _sum(self) -> int:
        return sum(file.size for file in self.files)


def for_address(address: Address, *, offline: bool, update: bool = False) -> DownloadPlan:
    """Return the plan for a repository, or for a folder or GGUF file of it.

    Raises:
        NotOnHubError: the repository, revision, folder or file does not exist, or has no weights or no tokenizer.
        ModelError: the hub cannot be reached, or access is denied.
    """
    from phi3_core.hub import fetch  # start-up: offline commands need no hub client

    return _of(address, *fetch.listed(address, offline=offline, update=update))


def for_source(
    ref: ModelRef,
    store: Store,
    *,
    offline: bool,
    update: bool = False,
    check: Callable[[Path], None] | None = None,
    chat: bool = False,
    core: bool = True,
) -> DownloadPlan:
    """Return the plan for a model's original weights, after the checks that need none of them.

    Takes the arguments of :func:`.sources.source_of`, and raises as it does.
    """
    if ref.path is not None:
        return DownloadPlan(words="nothing: it is on this machine")
    found = store.source(ref.name)
    if ref.address is None:
        if found is None and ref.name != sample.NAME:
            raise sources.not_stored(ref)
        return DownloadPlan(words="nothing: it is on this machine")
    if found is None or update:
        snapshot, files = sources.remote(
            ref, ref.address, found, offline=offline, update=update, check=check, chat=chat, core=core
        )
        if found is None or found.revision != snapshot.commit:
            return _of(ref.address, snapshot, files)
    return DownloadPlan(words=f"nothing: it is in {found.path}")


def _of(address: Address, snapshot: Snapshot, files: Sequence[RemoteFile]) -> DownloadPlan:
    """Return the plan for files of a snapshot. Raises :class:`DiskFullError` if they do not fit the store's disk."""
    from phi3_core.hub import cache  # start-up: as above

    absent = [file for file in files if not any(cache.copies(snapshot.repository, snapshot.commit, file))]
    words = f"from {address} at {snapshot.commit[:12]}"
    if len(absent) < len(files):
        here = f"{len(files) - len(absent)} of {len(files)} files are in the hub's cache in {cache.root()}"
        words = f"{words}; {here}" if absent else f"nothing: {here}"
    if absent:
        check_free(home(), sum(file.size for file in absent), "the download")
    return DownloadPlan(
        words=words,
        repository=address.repository,
        commit=snapshot.commit,
        files=tuple(PlannedFile(name=snapshot.local_name(file), size=file.size) for file in absent),
    )

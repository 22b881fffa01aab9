"""Show what would be downloaded, without downloading it."""

from __future__ import annotations

from attrs import field, frozen

from phi3_core.hub.address import Address

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
    from phi3_core.hub import cache, fetch  # start-up: offline commands need no hub client

    snapshot, files = fetch.listed(address, offline=offline, update=update)
    absent = [file for file in files if not any(cache.copies(snapshot.repository, snapshot.commit, file))]
    words = f"from {address} at {snapshot.commit[:12]}"
    if len(absent) < len(files):
        here = f"{len(files) - len(absent)} of {len(files)} files are in the hub's cache in {cache.root()}"
        words = f"{words}; {here}" if absent else f"nothing: {here}"
    return DownloadPlan(
        words=words,
        repository=address.repository,
        commit=snapshot.commit,
        files=tuple(PlannedFile(name=snapshot.local_name(file), size=file.size) for file in absent),
    )


def for_source(ref: ModelRef, *, offline: bool, update: bool = False) -> DownloadPlan:
    """Return the plan for a model's original weights. Raises as :func:`for_address`."""
    if ref.path is not None or ref.address is None:
        return DownloadPlan(words="nothing: it is on this machine")
    return for_address(ref.address, offline=offline, update=update)

"""Show what would be downloaded, without downloading it."""

from __future__ import annotations

from attrs import field, frozen

from .catalogue import CATALOGUE
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


def for_repository(repository: str, revision: str | None, folder: str, *, offline: bool) -> DownloadPlan:
    """Return the plan for a folder of a repository.

    Raises:
        NotOnHubError: the repository, revision or folder does not exist, or has no weights or no tokenizer.
        ModelError: the hub cannot be reached, or access is denied.
    """
    from phi3_core.hub import fetch  # start-up: offline commands need no hub client

    snapshot, files = fetch.listed(repository, revision, folder, offline=offline)
    return DownloadPlan(
        words=f"from {repository}{'/' + folder if folder else ''} at {snapshot.commit[:12]}",
        repository=repository,
        commit=snapshot.commit,
        files=tuple(PlannedFile(name=snapshot.local_name(file), size=file.size) for file in files),
    )


def for_source(ref: ModelRef, *, offline: bool) -> DownloadPlan:
    """Return the plan for a model's original weights. Raises as :func:`for_repository`."""
    known = CATALOGUE.get(ref.name)
    repository = known.repository if known else ref.repository
    if ref.path is not None or repository is None:
        return DownloadPlan(words="nothing: it is on this machine")
    return for_repository(repository, None, "", offline=offline)

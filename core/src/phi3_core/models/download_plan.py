"""What a pull would download, without downloading it."""

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
    """Files of a repository at a commit; none if everything is here already."""

    words: str
    repository: str | None = None
    commit: str | None = None
    files: tuple[PlannedFile, ...] = ()
    size_bytes: int = field(init=False)

    @size_bytes.default
    def _sum(self) -> int:
        return sum(file.size for file in self.files)


def for_repository(repository: str, revision: str | None, folder: str, *, offline: bool) -> DownloadPlan:
    """Plan the download of a folder of a repository.

    Raises:
        NotOnHubError: the hub has no such repository, revision or folder.
        ModelError: the hub cannot be asked.
    """
    from phi3_core.hub import fetch  # start-up: commands that stay offline do without the hub's client

    snapshot, files = fetch.listed(repository, revision, folder, offline=offline)
    return DownloadPlan(
        words=f"from {repository}{'/' + folder if folder else ''} at {snapshot.commit[:12]}",
        repository=repository,
        commit=snapshot.commit,
        files=tuple(PlannedFile(name=snapshot.local_name(file), size=file.size) for file in files),
    )


def for_source(ref: ModelRef, *, offline: bool) -> DownloadPlan:
    """Plan the download of a model's original weights.

    Raises:
        NotOnHubError, ModelError: as :func:`for_repository`.
    """
    known = CATALOGUE.get(ref.name)
    repository = known.repository if known else ref.repository
    if ref.path is not None or repository is None:
        return DownloadPlan(words="nothing: it is on this machine")
    return for_repository(repository, None, "", offline=offline)

"""What a pull would download, without downloading it."""

from __future__ import annotations

from attrs import field, frozen

from .catalogue import CATALOGUE
from .ref import Reference


@frozen(kw_only=True)
class PlannedFile:
    name: str
    size: int


@frozen(kw_only=True)
class Plan:
    """Files of a repository at a commit; none if everything is here already."""

    words: str
    repository: str | None = None
    commit: str | None = None
    files: tuple[PlannedFile, ...] = ()
    size_bytes: int = field(init=False)

    @size_bytes.default
    def _sum(self) -> int:
        return sum(file.size for file in self.files)


def for_repository(repository: str, revision: str | None, folder: str, *, offline: bool) -> Plan:
    """What would come from a repository.

    Raises:
        ModelError: the hub cannot be asked, or has no such thing.
    """
    from phi3_core.hub import fetch

    snapshot, files = fetch.listed(repository, revision, folder, offline=offline)
    return Plan(
        words=f"from {repository}{'/' + folder if folder else ''} at {snapshot.commit[:12]}",
        repository=repository,
        commit=snapshot.commit,
        files=tuple(PlannedFile(name=snapshot.local_name(file), size=file.size) for file in files),
    )


def for_source(reference: Reference, *, offline: bool) -> Plan:
    """What the original weights would be.

    Raises:
        ModelError: they do not come from the hub, or the hub does not have them.
    """
    known = CATALOGUE.get(reference.name)
    repository = known.repository if known else reference.repository
    if reference.path is not None or repository is None:
        return Plan(words="nothing: it is on this machine")
    return for_repository(repository, None, "", offline=offline)

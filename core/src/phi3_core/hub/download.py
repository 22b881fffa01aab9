"""Files of a snapshot, brought into a folder: several at once, resumed where they stopped, and checked."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from phi3_core.disk import check_free
from phi3_core.errors import ModelError
from phi3_core.store.locking import store_errors
from phi3_core.store.store import PARTIAL
from phi3_core.values import Progress

from .client import HubClient
from .snapshot import RemoteFile, Snapshot, check_name
from .transfer import Job, Transfer, is_right, size_of


def download(
    snapshot: Snapshot, files: Iterable[RemoteFile], destination: Path, progress: Progress, *, offline: bool = False
) -> None:
    """Bring ``files`` of ``snapshot`` into ``destination``, where the snapshot's folder becomes the root.

    A file appears under its name when it is whole and its hash is right. What is on the way lies in ``.partial``,
    which goes when all is done; what a killed call left there is taken up by the next one. One process at a time
    may do this to a destination: see :func:`phi3_core.store.locking.locked`.

    Raises:
        ModelError: the hub does not give a file, or the bytes it gave are not those it announced.
        StoreError: the disk has too little room, or cannot be written.
    """
    jobs = _jobs(snapshot, files, destination)
    total = sum(job.file.size for job in jobs)
    missing = list(_missing(jobs, total, progress))
    partials = destination / PARTIAL
    if missing:
        client = HubClient(snapshot.repository, snapshot.commit, offline=offline)
        with store_errors(destination):
            partials.mkdir(parents=True, exist_ok=True)
            for stale in set(partials.iterdir()) - {job.partial for job in missing}:
                stale.unlink()  # of another commit
        check_free(destination, sum(job.file.size - size_of(job.partial) for job in missing), "the download")
        Transfer(client, missing, total, progress).run()
    shutil.rmtree(partials, ignore_errors=True)


def _jobs(snapshot: Snapshot, files: Iterable[RemoteFile], destination: Path) -> list[Job]:
    """What there is to do, the largest file first, so that it is not the one that all wait for at the end."""
    jobs: dict[str, Job] = {}
    for file in files:
        check_name(file.name)
        local = snapshot.local_name(file)
        if local.casefold() in jobs:
            names = f"{jobs[local.casefold()].file.name} and {file.name}"
            raise ModelError(f"{snapshot.repository} offers {names}, which are one name on some systems")
        # Named after its content, so that what is left of another commit is not taken for the beginning of this.
        key = hashlib.sha256(f"{file.name}\n{file.sha256}\n{file.git_oid}".encode()).hexdigest()[:32]
        jobs[local.casefold()] = Job(file=file, path=destination / local, partial=destination / PARTIAL / key)
    return sorted(jobs.values(), key=lambda job: -job.file.size)


def _missing(jobs: Iterable[Job], total: int, progress: Progress) -> Iterator[Job]:
    """The jobs that are still to be done. A file that is there is not believed for its name and size."""
    checked = 0

    def report(count: int) -> None:
        nonlocal checked
        checked += count
        progress("checking", checked, total)

    for job in jobs:
        before = checked
        with store_errors(job.path.parent):
            if job.path.is_file() and size_of(job.path) == job.file.size and is_right(job.path, job.file, report):
                continue
            job.path.unlink(missing_ok=True)
        checked = before
        yield job

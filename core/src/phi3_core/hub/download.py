"""Download files of a snapshot into a folder: in parallel, resumable and verified."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from phi3_core.disk import check_free
from phi3_core.errors import ModelError
from phi3_core.files import discard_tree, unlink
from phi3_core.store.locking import store_errors
from phi3_core.store.store import PARTIAL
from phi3_core.values import Progress

from .client import HubClient
from .snapshot import RemoteFile, Snapshot, check_name
from .transfer import Job, Transfer, is_right, size_of


def download(
    snapshot: Snapshot, files: Iterable[RemoteFile], destination: Path, progress: Progress, *, offline: bool = False
) -> None:
    """Download ``files`` of ``snapshot`` into ``destination``, which corresponds to the snapshot's folder.

    A file appears under its name when it is complete and its hash is verified. Incomplete files are in ``.partial``,
    which is removed at the end; after an interruption the next call resumes them. Only one process at a time may
    download into a destination: see :func:`phi3_core.store.locking.locked`.

    Raises:
        ModelError: the hub does not deliver a file, or its content does not have the announced size and hash.
        StoreError: the destination cannot be written, or the disk has too little space.
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
                unlink(stale)  # from another commit
        check_free(destination, sum(job.file.size - size_of(job.partial) for job in missing), "the download")
        Transfer(client, missing, total, progress).run()
    discard_tree(partials)


def _jobs(snapshot: Snapshot, files: Iterable[RemoteFile], destination: Path) -> list[Job]:
    """Return the jobs, the largest file first: if it came last, it would be downloaded alone."""
    jobs: dict[str, Job] = {}
    for file in files:
        check_name(file.name)
        local = snapshot.local_name(file)
        if local.casefold() in jobs:
            names = f"{jobs[local.casefold()].file.name} and {file.name}"
            raise ModelError(f"{snapshot.repository} offers {names}, which are one name on some systems")
        # Named after its content, so that a partial file of another commit is not resumed.
        key = hashlib.sha256(f"{file.name}\n{file.sha256}\n{file.git_oid}".encode()).hexdigest()[:32]
        jobs[local.casefold()] = Job(file=file, path=destination / local, partial=destination / PARTIAL / key)
    return sorted(jobs.values(), key=lambda job: -job.file.size)


def _missing(jobs: Iterable[Job], total: int, progress: Progress) -> Iterator[Job]:
    """Yield the jobs that remain. The hash of an existing file is verified, besides its name and size."""
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
            unlink(job.path)
        checked = before
        yield job

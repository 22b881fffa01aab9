"""Download files of a snapshot into a folder: in parallel, resumable and verified."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import define

from phi3_core.disk import check_free, reason
from phi3_core.errors import ModelError
from phi3_core.files import discard_tree, replace_path, unlink
from phi3_core.store.folders import PARTIAL
from phi3_core.store.locking import store_errors
from phi3_core.values import Progress

from . import cache
from .client import HubClient
from .snapshot import RemoteFile, Snapshot, check_name
from .transfer import Job, Transfer, is_right, size_of

logger = logging.getLogger("phi3_core")

_LINKED_FROM = 2**20


def download(
    snapshot: Snapshot, files: Iterable[RemoteFile], destination: Path, progress: Progress, *, offline: bool = False
) -> int:
    """Download ``files`` of ``snapshot`` into ``destination``, which corresponds to the snapshot's folder.

    What the hub's own cache on this machine holds is linked from there, or copied if it lies on another disk. A file
    appears under its name when it is complete and its hash is verified, as far as the hub tells one. Incomplete files
    are in ``.partial``, which is removed at the end; after an interruption the next call resumes them. Only one process
    at a time may download into a destination: see :func:`phi3_core.store.locking.locked`.

    Returns:
        How many files were taken from the hub's own cache.

    Raises:
        ModelError: the hub does not deliver a file, or its content does not have the announced size and hash.
        StoreError: the destination cannot be written, or the disk has too little space.
    """
    jobs = _jobs(snapshot, files, destination)
    total = sum(job.file.size for job in jobs)
    wanted = list(_missing(jobs, total, progress))
    missing = _not_cached(snapshot, wanted, total, progress)
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
    return len(wanted) - len(missing)


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
        known = file.sha256 or file.git_oid or f"{snapshot.commit} {file.size}"
        key = hashlib.sha256(f"{file.name}\n{known}".encode()).hexdigest()[:32]
        jobs[local.casefold()] = Job(file=file, path=destination / local, partial=destination / PARTIAL / key)
    return sorted(jobs.values(), key=lambda job: -job.file.size)


@define
class _Checked:
    """Reports how many bytes have been checked."""

    count: int
    total: int
    progress: Progress

    def add(self, count: int) -> None:
        self.count += count
        self.progress("checking", self.count, self.total)


def _missing(jobs: Iterable[Job], total: int, progress: Progress) -> Iterator[Job]:
    """Yield the jobs that remain. The hash of an existing file is verified, besides its name and size."""
    checked = _Checked(0, total, progress)
    for job in jobs:
        before = checked.count
        with store_errors(job.path.parent):
            if job.path.is_file() and is_right(job.path, job.file, checked.add):
                continue
            unlink(job.path)
        checked.count = before
        yield job


def _not_cached(snapshot: Snapshot, jobs: list[Job], total: int, progress: Progress) -> list[Job]:
    """Take files from the hub's own cache, and return the jobs that remain."""
    left = []
    checked = _Checked(total - sum(job.file.size for job in jobs), total, progress)
    for job in jobs:
        before = checked.count
        for copy in cache.copies(snapshot.repository, snapshot.commit, job.file):
            checked.count = before
            try:
                right = is_right(copy, job.file, checked.add)
            except OSError as error:
                logger.info("%s cannot be read: %s", copy, reason(error))
                continue
            if right:
                _take(copy, job)
                break
            logger.warning("%s is damaged, and is not used", copy)
        else:
            checked.count = before
            left.append(job)
    return left


def _take(file: Path, job: Job) -> None:
    """Link a file of the cache to its destination, or copy it if the disk or the system does not allow links.

    Small files are always copied: people edit settings in place.
    """
    with store_errors(job.path.parent):
        job.path.parent.mkdir(parents=True, exist_ok=True)
        if job.file.size >= _LINKED_FROM:
            with contextlib.suppress(OSError):
                os.link(file, job.path)
                return
            check_free(job.path.parent, job.file.size, "the copy of the hub's cache")
        job.partial.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, job.partial)
        replace_path(job.partial, job.path)

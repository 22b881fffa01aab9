"""The threads that download files, and their shared state."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from queue import Empty, SimpleQueue

from attrs import frozen

from phi3_core import files
from phi3_core.errors import ModelError
from phi3_core.store.locking import store_errors
from phi3_core.values import Progress

from .client import Body, HubClient, Retry
from .refusals import TransientError
from .snapshot import RemoteFile

AT_ONCE = 4
TRIES = 6
RETRY_RESET_BYTES = 2**20
"""An attempt that receives this many bytes resets the count of attempts."""


@frozen(kw_only=True)
class Job:
    """One file to download."""

    file: RemoteFile
    path: Path
    """The destination."""
    partial: Path
    """The path until the file is complete."""


def is_right(path: Path, file: RemoteFile, report: Callable[[int], object]) -> bool:
    """Return whether a file has the size and the hash that the hub announced, if it announced one.

    ``report`` is called with the size of each block in bytes after it was read.
    """
    size = size_of(path)
    if size != file.size:
        return False
    digests = [hashlib.sha256()]
    if file.sha256 is None:
        # Git's hash of a blob; mirrors that are not made of git repositories may have the plain one.
        digests = [hashlib.sha1(start, usedforsecurity=False) for start in (b"blob %d\0" % size, b"")]
    known = file.sha256 or file.git_oid
    if known is None:
        report(size)
        return True
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            for digest in digests:
                digest.update(block)
            report(len(block))
    return known in {digest.hexdigest() for digest in digests}


def size_of(path: Path) -> int:
    """Return the size of a file in bytes, or 0 if it does not exist."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class _Stopped(Exception):  # noqa: N818 - ends a thread; the error itself is raised elsewhere
    """The download has ended for a reason outside of this thread."""


class Transfer:
    """Downloads files in several threads. The calling thread reports the progress, and can be interrupted.

    Args:
        client: access to the repository.
        jobs: the files to download.
        total: size of all files in bytes, including those that exist.
        progress: called with the bytes received, then with the bytes verified.
    """

    def __init__(self, client: HubClient, jobs: list[Job], total: int, progress: Progress) -> None:
        self._client = client
        self._progress = progress
        self._total = total
        self._received = self._checked = total - sum(job.file.size for job in jobs)
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        for job in jobs:
            self._jobs.put(job)
        # Daemons, because a thread that waits for a silent server cannot be woken.
        self._threads = [
            threading.Thread(target=self._work, name=f"download-{number}", daemon=True)
            for number in range(min(AT_ONCE, len(jobs)))
        ]
        self._working = len(self._threads)
        self._over = threading.Event()
        self._halted = threading.Event()
        self._gate = threading.Lock()
        self._error: BaseException | None = None

    def run(self) -> None:
        """Download all files, verify them and move them to their destinations.

        Raises:
            ModelError: the first error of any thread.
        """
        try:
            for thread in self._threads:
                thread.start()
            while not self._over.wait(0.1):
                self._report()
        finally:
            with self._gate:  # a thread may live for some more seconds, but changes nothing
                self._halted.set()
            for thread in self._threads:  # so that the files are closed, unless a thread is waiting for the server
                if thread.is_alive():
                    thread.join(1 / AT_ONCE)
        if self._error is not None:
            raise self._error
        self._report()

    def _report(self) -> None:
        if self._received < self._total:
            self._progress("downloading", self._received, self._total)
        else:
            self._progress("checking", self._checked, self._total)

    def _work(self) -> None:
        try:
            while True:
                self._obtain(self._jobs.get_nowait())
        except (Empty, _Stopped):
            pass
        except BaseException as error:  # raised again in the calling thread
            self._error = self._error or error
            self._over.set()
        with self._gate:
            self._working -= 1
            if self._working == 0:
                self._over.set()

    def _obtain(self, job: Job) -> None:
        retry = Retry(tries=TRIES, wait=self._pause)
        with self._running(job), job.partial.open("ab") as stream:
            if stream.tell() > job.file.size:
                stream.truncate(0)
            self._received += stream.seek(0, os.SEEK_END)
        while (before := size_of(job.partial)) < job.file.size:
            try:
                self._fetch(job, before)
            except TransientError as error:
                if size_of(job.partial) - before >= RETRY_RESET_BYTES:
                    retry.renew()
                retry.spend(error)
        self._accept(job)

    def _fetch(self, job: Job, start: int) -> None:
        name, size = job.file.name, job.file.size
        hint = "try again later; what has been downloaded is kept"
        with self._client.read(name, start) as body:
            if body.total not in {None, size} or body.start not in {0, start}:
                raise TransientError(f"the hub sends something else than {name}", hint=hint)
            with contextlib.ExitStack() as stack:
                with store_errors(job.path.parent):
                    stream = stack.enter_context(job.partial.open("r+b", buffering=0))
                self._write(job, stream, body, start)
        if size_of(job.partial) < size:
            raise TransientError(f"the connection ended in the middle of {name}", hint=hint)

    def _write(self, job: Job, stream: FileIO, body: Body, start: int) -> None:
        with self._running(job):
            stream.truncate(body.start)  # below start only if the server does not support ranges
            stream.seek(body.start)
            self._received += body.start - start
        at = body.start
        for block in body.blocks:
            at += len(block)
            if at > job.file.size:
                hint = "if HF_ENDPOINT names a mirror, use another or none"
                raise ModelError(f"{job.file.name} is longer than the hub announced", hint=hint)
            with self._running(job):
                rest = memoryview(block)
                while rest:  # unbuffered: only written bytes count, and a full disk fails here, not in close()
                    rest = rest[stream.write(rest) :]
                self._received += len(block)

    def _accept(self, job: Job) -> None:
        name = job.file.name
        with store_errors(job.path.parent):
            right = is_right(job.partial, job.file, self._count_checked)
        with self._running(job):
            if right:
                job.path.parent.mkdir(parents=True, exist_ok=True)
                files.replace_path(job.partial, job.path)
            else:
                files.unlink(job.partial)
        if not right:
            hint = "run it again to fetch that file afresh; what else has been downloaded is kept"
            raise ModelError(f"{name} arrived damaged: its hash is not the one that the hub announced", hint=hint)

    @contextlib.contextmanager
    def _running(self, job: Job) -> Iterator[None]:
        """Allow changes to files and counters, one thread at a time; raise :class:`_Stopped` after the end."""
        with store_errors(job.path.parent), self._gate:
            if self._halted.is_set():
                raise _Stopped
            yield

    def _count_checked(self, count: int) -> None:
        with self._gate:
            if self._halted.is_set():
                raise _Stopped
            self._checked += count

    def _pause(self, seconds: float) -> None:
        if self._halted.wait(seconds):
            raise _Stopped

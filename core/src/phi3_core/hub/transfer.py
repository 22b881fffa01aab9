"""Threads that fetch the files of a download, and what they agree on."""

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

from phi3_core.errors import ModelError
from phi3_core.store.locking import store_errors
from phi3_core.values import Progress

from .client import Body, HubClient, Retry, TransientError
from .snapshot import RemoteFile

AT_ONCE = 4
TRIES = 6
RETRY_RESET_BYTES = 2**20
"""So many bytes from one try, and the tries are counted afresh."""


@frozen(kw_only=True)
class Job:
    """One file: where it comes from, where it goes, and where it lies until it is whole."""

    file: RemoteFile
    path: Path
    partial: Path


def is_right(path: Path, file: RemoteFile, report: Callable[[int], object]) -> bool:
    """Whether the content has the hash that the hub announced. ``report`` is told how many bytes have been read."""
    digest = hashlib.sha256()
    if file.sha256 is None:
        digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)  # what git calls the content
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
            report(len(block))
    return digest.hexdigest() == (file.sha256 or file.git_oid)


def size_of(path: Path) -> int:
    """The size of a file, or 0 if it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class _Stopped(Exception):  # noqa: N818 - the error that counts is somebody else's
    """The download is over, for a reason outside this thread."""


class Transfer:
    """One run of the threads. The one that called reports how far they are, and is the one that can be interrupted."""

    def __init__(self, client: HubClient, jobs: list[Job], total: int, progress: Progress) -> None:
        self._client = client
        self._progress = progress
        self._total = total
        self._received = self._checked = total - sum(job.file.size for job in jobs)
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        for job in jobs:
            self._jobs.put(job)
        # Daemons, because nothing wakes a thread that waits for a silent server.
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
        """Return when all files are whole, right and in their places.

        Raises:
            ModelError: the first thing that went wrong in any thread.
        """
        try:
            for thread in self._threads:
                thread.start()
            while not self._over.wait(0.1):
                self._report()
        finally:
            with self._gate:  # a thread may live on for some seconds, but from here on it changes nothing
                self._halted.set()
            for thread in self._threads:  # so that the caller finds no file open, if that can be had at once
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
        except BaseException as error:  # it is for the thread that called
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
            stream.truncate(body.start)  # below start only if the server did not take up where we stopped
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
                while rest:  # unbuffered: what is counted is on disk, and a full disk shows here and not at closing
                    rest = rest[stream.write(rest) :]
                self._received += len(block)

    def _accept(self, job: Job) -> None:
        name = job.file.name
        with store_errors(job.path.parent):
            right = is_right(job.partial, job.file, self._count_checked)
        with self._running(job):
            if right:
                job.path.parent.mkdir(parents=True, exist_ok=True)
                job.partial.replace(job.path)
            else:
                job.partial.unlink()
        if not right:
            hint = "run it again to fetch that file afresh; what else has been downloaded is kept"
            raise ModelError(f"{name} arrived damaged: its hash is not the one that the hub announced", hint=hint)

    @contextlib.contextmanager
    def _running(self, job: Job) -> Iterator[None]:
        """Change something on disk, or in the figures, unless the download is over."""
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

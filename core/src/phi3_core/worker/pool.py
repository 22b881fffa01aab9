"""A source of worker processes, the first of which can be started before its backend is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .host import Worker

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from phi3_core.plugin import Backend


class WorkerPool:
    """Provides workers. A worker that was started early and not taken is killed when the pool is closed."""

    def __init__(self) -> None:
        self._spare: Worker | None = None

    def prestart(self) -> Self:
        """Start a worker now, so that it imports in parallel with the calling process."""
        if self._spare is None:
            self._spare = Worker()
        return self

    def take(self, backend: Backend, *, disposable: bool = False) -> Worker:
        """Return a worker that is importing ``backend``.

        Args:
            backend: the backend to import.
            disposable: whether Ctrl-C during an answer may kill the process.
        """
        worker, self._spare = self._spare or Worker(), None
        return worker.open(backend, disposable=disposable)

    def close(self) -> None:
        """Kill the worker that was started and not taken, if any. Taken workers belong to their callers."""
        worker, self._spare = self._spare, None
        if worker is not None:
            worker.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

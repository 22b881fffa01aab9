"""Worker processes for those who need one, the first of them started before it is known for which backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .host import Worker

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from phi3_core.plugin import Backend


class WorkerPool:
    """Hands out workers. One that was started early and is not taken is killed when the pool is closed."""

    def __init__(self) -> None:
        self._spare: Worker | None = None

    def prestart(self) -> Self:
        """Start a worker now, so that its imports run beside those of the calling process."""
        if self._spare is None:
            self._spare = Worker()
        return self

    def take(self, backend: Backend, *, disposable: bool = False) -> Worker:
        """Return a worker that is importing ``backend``.

        Args:
            backend: what the worker is for.
            disposable: whether Ctrl-C in the middle of an answer may end the process at once.
        """
        worker, self._spare = self._spare or Worker(), None
        return worker.open(backend, disposable=disposable)

    def close(self) -> None:
        """Kill a worker that was started and not taken. Those that were taken belong to their takers."""
        worker, self._spare = self._spare, None
        if worker is not None:
            worker.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

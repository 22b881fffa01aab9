"""Turns: which answers an engine generates now, and which ones wait, in the order of arrival.

An answer waits for its turn when it is first read, in the thread or task that reads it. A waiting thread blocks, and a
waiting task needs no thread.
"""

from __future__ import annotations

import collections
import threading
import time
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import TracebackType

from .errors import UsageError

_TICK_S = 0.2
_IDLE_S = 10.0
"""Seconds after which a thread does not wait for an answer that nobody reads, and that it was the last to read."""
_MAIN_IDLE_S = 1.0
"""The same for the main thread, which belongs to no pool."""


class Turns:
    """The turns at one engine.

    Args:
        places: the number of answers that the engine generates at once.
    """

    def __init__(self, places: int = 1) -> None:
        self.places = places
        self._lock = threading.Lock()
        self._active: list[Turn] = []
        self._waiting: collections.deque[Turn] = collections.deque()

    def request(self, turn: Turn) -> None:
        """Put a turn at the end of the queue; its ``granted`` is set when a place is free."""
        with self._lock:
            self._waiting.append(turn)
            self._grant()

    def leave(self, turn: Turn) -> None:
        """Give the place, or the position in the queue, to the next."""
        with self._lock:
            if turn in self._active:
                self._active.remove(turn)
            elif turn in self._waiting:
                self._waiting.remove(turn)
            self._grant()

    def _grant(self) -> None:
        while self._waiting and len(self._active) < self.places:
            turn = self._waiting.popleft()
            try:
                turn.granted.set_result(None)
            except InvalidStateError:  # the waiting task was cancelled
                continue
            self._active.append(turn)

    def blocked_by(self, reader: int, *, idle_s: float) -> bool:
        """Return whether ``reader`` waits for itself: whether it was the last to read every answer that has a place.

        Args:
            reader: a thread's id.
            idle_s: the seconds for which nobody has read these answers.
        """
        now = time.monotonic()
        with self._lock:
            return len(self._active) >= self.places and all(
                turn.reader == reader and turn.idle_since is not None and now - turn.idle_since >= idle_s
                for turn in self._active
            )


class Turn:
    """One answer's turn. As a context manager, it waits on entry and ends on exit; :attr:`granted` is for tasks."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._requested = False
        self.granted: Future[None] = Future()
        """Done when the answer has its place."""
        self.reader: int | None = None
        """The thread that reads the answer, or that was the last to read it."""
        self.idle_since: float | None = None
        """The time since which nobody has been reading it, from ``time.monotonic()``; None while it is read."""

    def request(self) -> Future[None]:
        """Join the queue, if that has not been done, and return :attr:`granted`."""
        if not self._requested:
            self._requested = True
            self._turns.request(self)
        return self.granted

    def begin_read(self) -> None:
        """Note that the calling thread reads the answer."""
        self.reader, self.idle_since = threading.get_ident(), None

    def end_read(self) -> None:
        """Note that nobody reads the answer now."""
        self.idle_since = time.monotonic()

    def __enter__(self) -> Turn:  # noqa: PYI034 - Python 3.10 has no Self
        """Wait for the turn.

        Raises:
            UsageError: the calling thread would wait for an answer that only it would read.
            CancelledError: :meth:`cancel` was called.
        """
        granted = self.request()
        try:
            while True:
                try:
                    # In short steps, because on Windows Ctrl-C does not interrupt every wait.
                    granted.result(timeout=_TICK_S)
                except FutureTimeoutError:
                    self._refuse_to_wait_for_itself()
                else:
                    return self
        except BaseException:
            self.leave()
            raise

    def _refuse_to_wait_for_itself(self) -> None:
        # In a web framework any thread of a pool may read the next chunk of an answer that this one has begun to read.
        main = threading.current_thread() is threading.main_thread()
        if self._turns.blocked_by(threading.get_ident(), idle_s=_MAIN_IDLE_S if main else _IDLE_S):
            raise UsageError("another answer of this model is still being streamed", hint="finish it, or close() it")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()

    def cancel(self) -> None:
        """End another thread's wait for the turn, if it waits."""
        self.granted.cancel()

    def leave(self) -> None:
        """End the turn, or stop waiting for it. May be called more than once."""
        self._turns.leave(self)

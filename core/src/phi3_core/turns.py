"""Turns: which answers an engine generates now, and which ones wait, in the order of arrival.

An answer waits for its turn when it is first read, in the thread or task that reads it. A waiting thread blocks, and a
waiting task needs no thread.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError

from .errors import QueueFullError, UsageError

_IDLE_S = 10.0
"""Seconds after which a thread does not wait for an answer that nobody reads, and that it was the last to read."""
_MAIN_IDLE_S = 1.0
"""The same for the main thread, which belongs to no pool."""


class Turns:
    """The turns at one engine.

    Args:
        places: the number of answers that the engine generates at once.
        max_waiting: the number of answers that may wait; None for any number.
    """

    def __init__(self, places: int = 1, max_waiting: int | None = None) -> None:
        self.places = places
        self.max_waiting = max_waiting
        # The garbage collector may end a turn in any thread, even in one that holds the lock.
        self._lock = threading.RLock()
        self._active: list[Turn] = []
        self._waiting: collections.deque[Turn] = collections.deque()

    @property
    def running(self) -> int:
        """Number of answers that have a place."""
        return len(self._active)

    @property
    def waiting(self) -> int:
        """Number of answers that wait for one."""
        return len(self._waiting)

    def resize(self, places: int) -> None:
        """Change the number of places. Turns that have begun keep theirs."""
        with self._lock:
            self.places = places
            self._grant()

    def request(self, turn: Turn) -> None:
        """Put a turn at the end of the queue; its ``granted`` is set when a place is free.

        Raises:
            QueueFullError: too many turns are waiting.
        """
        with self._lock:
            full = len(self._active) >= self.places
            if full and self.max_waiting is not None and len(self._waiting) >= self.max_waiting:
                raise QueueFullError(
                    f"{len(self._active)} answers are being generated, and {self.max_waiting} are waiting already",
                    hint="ask again later",
                )
            self._waiting.append(turn)
            self._grant()

    def renew(self, turn: Turn) -> None:
        """Give a place up and wait for another one, before the turns that have not begun.

        The turn is on trial from then on, until :meth:`acquit`.
        """
        with self._lock:
            if turn in self._active:
                self._active.remove(turn)
            turn.on_trial = True
            begun = sum(other.on_trial for other in self._waiting)
            self._waiting.insert(begun, turn)
            self._grant()

    def acquit(self, turn: Turn) -> None:
        """End a turn's trial: the next one may begin beside it."""
        with self._lock:
            turn.on_trial = False
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
        while self._waiting and len(self._active) < self.places and not any(turn.on_trial for turn in self._active):
            turn = self._waiting.popleft()
            self._active.append(turn)  # before anybody is told, who may close the answer at once
            try:
                turn.granted.set_result(None)
            except InvalidStateError:  # the waiting answer was closed
                self._active.remove(turn)

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
    """One answer's turn."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.on_trial = False
        """Whether the engine failed with the answer, and there is no token since. No other turn begins beside it."""
        self.granted: Future[None] = Future()
        """Done when the answer has its place."""
        self.reader: int | None = None
        """The thread that reads the answer, or that was the last to read it."""
        self.idle_since: float | None = None
        """The time since which nobody has been reading it, from ``time.monotonic()``; None while it is read."""

    def request(self) -> None:
        """Join the queue. Raises as :meth:`Turns.request`."""
        self._turns.request(self)

    def renew(self) -> None:
        """Wait for a place at another engine, where the answer is on trial until there is a token."""
        self.granted = Future()
        self._turns.renew(self)

    def acquit(self) -> None:
        """End the trial, because there is a token."""
        self._turns.acquit(self)

    def begin_read(self) -> None:
        """Note that the calling thread reads the answer."""
        self.reader, self.idle_since = threading.get_ident(), None

    def end_read(self) -> None:
        """Note that nobody reads the answer now."""
        self.idle_since = time.monotonic()

    def wait(self, timeout_s: float) -> None:
        """Block until the turn is granted, or for ``timeout_s`` seconds.

        Raises:
            UsageError: the calling thread would wait for an answer that only it would read.
            CancelledError: :meth:`cancel` was called.
        """
        try:
            self.granted.result(timeout=timeout_s)
        except FutureTimeoutError:
            self._refuse_to_wait_for_itself()

    def notify(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the turn is granted or cancelled, in any thread, perhaps at once."""
        self.granted.add_done_callback(lambda _: callback())

    def _refuse_to_wait_for_itself(self) -> None:
        # In a web framework any thread of a pool may read the next chunk of an answer that this one has begun to read.
        main = threading.current_thread() is threading.main_thread()
        if self._turns.blocked_by(threading.get_ident(), idle_s=_MAIN_IDLE_S if main else _IDLE_S):
            raise UsageError("another answer of this model is still being streamed", hint="finish it, or close() it")

    def cancel(self) -> None:
        """End another thread's wait for the turn, if it waits."""
        self.granted.cancel()

    def leave(self) -> None:
        """End the turn, or stop waiting for it. May be called more than once."""
        self._turns.leave(self)

"""One call of a worker: what has arrived for it, its time limit, and who waits for it."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Result:
    """The end of a call that succeeded."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Timing(NamedTuple):
    """When the ids of a call arrived."""

    tokens: int
    first_token_s: float
    """Seconds from the start of the call to its first id."""
    decode_s: float
    """Seconds from the first id to the last one."""

    @property
    def decode_tokens_per_s(self) -> float:
        """Tokens per second after the first one; 0 if there are too few to tell."""
        return (self.tokens - 1) / self.decode_s if self.decode_s > 0 else 0.0


class Call:
    """One call. One thread reads the worker's messages and fills it; another one, or a task, takes what arrives."""

    def __init__(self, number: int, verb: str) -> None:
        self.number = number
        self.verb = verb
        self.arrived: collections.deque[Any] = collections.deque()
        """What has arrived and has not been taken: ids (``int``), progress (``list``), and at the end a
        :class:`Result` or an exception."""
        self.ended = False
        """Whether the end has arrived."""
        self.abandoned = False
        """Whether nobody waits for the end any more, although the worker may still be busy with it."""
        self.slowest_s = 0.0
        """The longest time between two ids, in seconds."""
        self.array: Any = None
        """The array that belongs to the result."""
        self._started = time.perf_counter()
        self._first = self._last = self._started
        self._tokens = 0
        self._since = time.monotonic()
        self._limit_s: float | None = None
        self._next_limit_s: float | None = None
        self._restarts = True
        self._signal = threading.Lock()
        self._signal.acquire()
        self._callback: Callable[[], object] | None = None
        self._at_end: Callable[[], object] | None = None

    @property
    def timing(self) -> Timing:
        """When the ids have arrived, whoever takes them."""
        return Timing(self._tokens, self._first - self._started, self._last - self._first)

    # --- the time limit -------------------------------------------------------------------------------------------

    def limit(self, limit_s: float, *, since: float | None = None, next_s: float | None = None) -> None:
        """Set the time limit.

        Args:
            limit_s: the time limit in seconds. It restarts with each message, unless ``since`` is given.
            since: the start of the time limit, from ``time.monotonic()``; now by default.
            next_s: the limit after the first id.
        """
        self._restarts = since is None
        self._since = time.monotonic() if since is None else since
        self._limit_s, self._next_limit_s = limit_s, next_s
        if self._tokens and next_s is not None:  # the first id was faster than this
            self._limit_s, self._next_limit_s = next_s, None

    def exceeded(self, now: float) -> float | None:
        """Return the time limit in seconds if it is exceeded at the time ``now``."""
        limit_s = self._limit_s
        return limit_s if limit_s is not None and now - self._since > limit_s else None

    # --- waiting --------------------------------------------------------------------------------------------------

    def wait(self, timeout_s: float) -> None:
        """Block until something has arrived, or for ``timeout_s`` seconds."""
        if not self.arrived:
            self._signal.acquire(timeout=timeout_s)

    def wait_for_end(self, timeout_s: float) -> None:
        """Block until the call has ended or is abandoned, or for ``timeout_s`` seconds."""
        deadline = time.monotonic() + timeout_s
        while not (self.ended or self.abandoned) and (left := deadline - time.monotonic()) > 0:
            self._signal.acquire(timeout=left)

    def notify(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when something has arrived, in any thread; perhaps at once, and perhaps twice."""
        self._callback = callback
        if self.arrived:
            self._callback = None
            callback()

    def at_end(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the end has arrived, in any thread; perhaps at once, and perhaps twice."""
        self._at_end = callback
        if self.ended:
            callback()

    # --- for the reading thread -----------------------------------------------------------------------------------

    def put(self, item: Any) -> None:
        """Hand over an id or progress."""
        now = time.monotonic()
        if isinstance(item, int):
            self._last = time.perf_counter()
            self._tokens += 1
            if self._tokens == 1:
                self._first = self._last
            if self._next_limit_s is not None:
                self._limit_s, self._next_limit_s = self._next_limit_s, None
            elif (passed := now - self._since) > self.slowest_s:
                self.slowest_s = passed
        if self._restarts:
            self._since = now
        self.arrived.append(item)
        self.wake()

    def abandon(self, error: Exception | None) -> None:
        """Let nobody wait for the end any more; the error, if any, takes its place."""
        self.abandoned = True
        if error is not None:
            self.arrived.append(error)
        self.wake()

    def end(self, item: Result | Exception) -> None:
        """Hand over the end."""
        if not self.abandoned:
            self.arrived.append(item)
        self.ended = True
        self.wake()
        if self._at_end is not None:
            self._at_end()

    def wake(self) -> None:
        """Wake who waits."""
        if self._signal.locked():
            self._signal.release()
        callback = self._callback
        if callback is not None:
            self._callback = None
            callback()


def token_of(message: dict[str, Any]) -> int:
    """Return the token id of a message, with its logarithmic probabilities if it has them."""
    if "logprob" not in message:
        return int(message["id"])
    from phi3_core.values import ScoredToken  # start-up: the host starts its worker before it imports large modules

    top = ((int(token), float(logprob)) for token, logprob in message["top"])
    return ScoredToken(int(message["id"]), float(message["logprob"]), top)

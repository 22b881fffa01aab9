"""Requests that are answered together: each step goes on with all of them.

There is no thread for the steps. Of the threads that wait for a token, one runs the next step: whichever finds that
nobody does. Nobody works for others once its own token is there, and nothing is computed if nobody waits.
See docs/decisions/0031.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Generator
from typing import Any, Protocol

from phi3_core.errors import BackendError, Phi3Error
from phi3_core.values import GenerationRequest

from .loading import clean

_GAP = 0.0005
"""Seconds without another arrival before the first step of requests that start together, unless they were slower."""
_LONGEST_GAP = 0.008
"""Seconds between two arrivals that do not count as starting together."""
_END = object()


def gap_after(arrivals: list[float], gap: float) -> float:
    """Return how long to wait for another arrival the next time that requests start together.

    Somebody who asks alone waits next to nothing. After requests that came together, it is a little longer than the
    longest time between two of them, and becomes shorter each time that a request comes alone.

    Args:
        arrivals: when requests arrived, in seconds, from the first that was answered to those after the first step.
        gap: what was waited this time, in seconds.
    """
    ordered = sorted(arrivals)
    between = [after - before for before, after in itertools.pairwise(ordered)]
    together = list(itertools.takewhile(lambda seconds: seconds <= _LONGEST_GAP, between))
    return max(_GAP, 1.5 * max(together) if together else gap / 2)


class Steps(Protocol):
    """What makes the answers: a ``PagedBatch`` or a ``PipelineBatch``."""

    def add(self, request: GenerationRequest) -> Any:
        """Return the answer to a request; None if there is no room for it yet.

        It has new ``tokens``, whether it has ``ended``, and the ``failure`` that only it ended with, if any.
        """

    def step(self) -> None:
        """Go on with every answer."""

    def remove(self, answer: Any) -> None:
        """Forget an answer, whether it has ended or not."""


class Host(Protocol):
    """What loads the model."""

    def holds(self, length: int, new: int) -> bool:
        """Return whether the loaded model is right for a prompt of ``length`` tokens and ``new`` more."""

    def take(self, length: int, new: int) -> Steps:
        """Return the model for such a request, loading it first if it is not the one that is loaded."""

    def drop(self) -> None:
        """Forget the loaded model: it failed, or is not needed any more."""


class _Reader:
    """Where the tokens of one request go."""

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.arrived = time.perf_counter()
        self.items: deque[Any] = deque()
        """Ids, then ``_END`` or an exception."""
        self.answer: Any = None


class Batch:
    """The requests of one engine. Each answer may be pulled in a thread of its own."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._steps: Any = None
        self._arrived: deque[_Reader] = deque()
        self._active: list[_Reader] = []
        self._left: list[Any] = []
        """Answers that nobody reads any more, to be removed before the next step."""
        self._stepping = False
        self._closed = False
        self._gap = _GAP
        self._changed = threading.Condition(threading.Lock())
        """Held to change any of this, and never during a step."""

    def stream(self, request: GenerationRequest) -> Generator[int, None, None]:
        """Yield the ids of an answer. Closing it cancels the request.

        Raises:
            BackendError: OpenVINO failed, or the engine was closed.
            UsageError: the request's JSON schema cannot be followed.
        """
        if request.grammar is not None:
            request.grammar.compile()  # here, where nobody else waits for it
        reader = _Reader(request)
        with self._changed:
            if self._closed:
                raise BackendError("the engine is closed")
            self._arrived.append(reader)
        try:
            while (item := self._next(reader)) is not _END:
                if isinstance(item, Phi3Error):
                    raise item
                if isinstance(item, BaseException):
                    raise BackendError(clean(item)) from item
                yield item
        finally:
            self._leave(reader)

    def close(self) -> None:
        """End all requests. Their readers get a BackendError."""
        with self._changed:
            self._closed = True
            self._fail(BackendError("the engine was closed"), [*self._active, *self._arrived])
            self._arrived.clear()
            self._changed.notify_all()

    def _next(self, reader: _Reader) -> Any:
        """Return the next item of a request, as soon as a step has given it one."""
        while True:
            with self._changed:
                while not reader.items and self._stepping:
                    self._changed.wait()
                if reader.items:
                    return reader.items.popleft()
                self._stepping = True
            try:
                self._step()
            finally:
                with self._changed:
                    self._stepping = False
                    self._remove_left()
                    self._changed.notify_all()

    def _step(self) -> None:
        """Admit requests, run one step and give its tokens out. A failure ends the requests that were in the step."""
        first = not self._active
        if first:
            self._gather()
        self._admit()
        active = list(self._active)
        if not active:
            return
        try:
            self._steps.step()
        except Exception as error:
            with self._changed:
                self._fail(error, self._active)
            return
        with self._changed:
            for reader in active:
                self._collect(reader)
            if first:
                together = [*active, *self._arrived]
        if first:
            self._gap = gap_after([reader.arrived for reader in together], self._gap)

    def _gather(self) -> None:
        """Let requests that start at the same time arrive, so that their prompts are read in one step."""
        seen = 0
        while len(self._arrived) > seen:
            seen = len(self._arrived)
            time.sleep(self._gap)

    def _admit(self) -> None:
        """Add the requests that arrived, in their order, as far as the cache has room and the model is right."""
        while (reader := self._first_arrived()) is not None:
            answer = failure = None
            try:
                answer = self._add(reader.request)
            except Exception as error:
                failure = error
            with self._changed:
                if reader not in self._arrived:  # it left meanwhile, or the engine was closed
                    self._left += [answer] * (answer is not None)
                elif answer is not None:
                    self._arrived.remove(reader)
                    self._active.append(reader)
                    reader.answer = answer
                elif failure is not None:
                    self._arrived.remove(reader)
                    reader.items.append(failure)
                else:
                    return

    def _first_arrived(self) -> _Reader | None:
        """Return the request that is next, unless it needs another form of the model than those that are active."""
        with self._changed:
            self._remove_left()
            if self._closed:  # what was loaded meanwhile is not needed
                self._steps = None
                self._host.drop()
            if self._closed or not self._arrived:
                return None
            reader = self._arrived[0]
            return reader if not self._active or self._holds(reader.request) else None

    def _holds(self, request: GenerationRequest) -> bool:
        return self._steps is not None and self._host.holds(len(request.prompt_ids), request.max_new_tokens)

    def _add(self, request: GenerationRequest) -> Any:
        """Return the answer to a request; None if there is no room for it yet."""
        if not self._holds(request):
            self._steps = None
            self._steps = self._host.take(len(request.prompt_ids), request.max_new_tokens)
        answer = self._steps.add(request)
        if answer is None and not self._active:
            raise BackendError("the KV cache has no room for this request")
        return answer

    def _collect(self, reader: _Reader) -> None:
        """Give a request's reader what the last step made."""
        answer = reader.answer
        if answer is None:  # closed meanwhile
            return
        reader.items.extend(answer.tokens)
        answer.tokens.clear()
        if answer.ended:
            reader.items.append(answer.failure or _END)
            self._forget(reader)

    def _forget(self, reader: _Reader) -> None:
        self._active.remove(reader)
        self._left.append(reader.answer)
        reader.answer = None

    def _remove_left(self) -> None:
        while self._left and self._steps is not None:
            self._steps.remove(self._left.pop())
        self._left.clear()

    def _fail(self, error: Exception, readers: list[_Reader]) -> None:
        """End requests, and forget the model; the next request loads it again."""
        for reader in readers:
            reader.items.append(error)
            reader.answer = None
        self._active.clear()
        self._left.clear()
        self._steps = None
        self._host.drop()

    def _leave(self, reader: _Reader) -> None:
        """Forget a request, and cancel it if it is not finished."""
        with self._changed:
            if reader in self._arrived:
                self._arrived.remove(reader)
            if reader in self._active:
                self._forget(reader)
            if not self._stepping:
                self._remove_left()

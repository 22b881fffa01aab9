"""Requests that one pipeline processes together: each step gives every one of them its next token.

``ContinuousBatchingPipeline.step`` holds the GIL. A thread that called it all the time would starve the threads that
pull the answers, so there is none: of the threads that wait for a token, one leads. It waits until the others have sent
what they got from the last step and are back, runs the next step, and leaves with its own token; whoever waits then
leads. A consumer that does not come back within ``_PATIENCE`` is not waited for until it does.

A step with a single row rounds differently than a step with more, all of which give the same bits for a row. A request
that must not depend on its company never has a step to itself: a companion of one token fills it.
See docs/decisions/0031.
"""

from __future__ import annotations

import functools
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any, Protocol

import numpy as np
import openvino
import openvino_genai
from phi3_core.errors import BackendError

from .loading import STEP, clean

_PATIENCE = 0.002
"""Seconds to wait for consumers before a step."""
_GATHER = 0.0005
"""Seconds without another arrival before the first step of requests that start together."""
_END = object()
_LEAD = object()
_RUNNING = openvino_genai.GenerationStatus.RUNNING
_FINISHED = openvino_genai.GenerationStatus.FINISHED


class Host(Protocol):
    """What provides the pipeline."""

    def holds(self, length: int, new: int) -> bool:
        """Return whether the loaded pipeline is right for a prompt of ``length`` tokens and ``new`` more."""

    def take(self, length: int, new: int) -> Any:
        """Return the pipeline for such a request, loading it first if it is not the one that is loaded."""

    def drop(self) -> None:
        """Forget the loaded pipeline: it failed, or is not needed any more."""


class _Request:
    def __init__(
        self, prompt_ids: Sequence[int], config: Any, stop_ids: frozenset[int], *, blocks: int, exact: bool
    ) -> None:
        self.ids = openvino.Tensor(np.array([prompt_ids], dtype=np.int64))
        self.length = len(prompt_ids)
        self.config = config
        self.stop_ids = stop_ids
        self.blocks = blocks
        """Blocks of the cache that it may need."""
        self.items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        """Ids, then ``_END`` or an exception; ``_LEAD`` tells the waiting thread to lead."""
        self.left: int = config.max_new_tokens
        self.exact = exact
        """Whether its bits must not depend on its company; the prompts' never do."""
        self.started = False
        self.handle: Any = None
        self.waiting = False
        self.slow = False


class Batch:
    """The requests of one engine. Each answer may be pulled in a thread of its own."""

    def __init__(self, host: Host, *, block: int, blocks: int) -> None:
        self._host = host
        self._pipeline: Any = None
        self._block = block
        self._free = blocks
        self._arrived: deque[_Request] = deque()
        self._active: list[_Request] = []
        self._awaited: set[_Request] = set()
        """Requests whose consumers are still busy with the last step's tokens."""
        self._cancelled: list[_Request] = []
        """Requests whose blocks the next step frees."""
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        """Held to change any of this, and never during a step."""
        self._led = False
        self._everybody_back = threading.Lock()
        self._everybody_back.acquire()
        self._leader_waits = False
        self._closed = False

    def stream(
        self, prompt_ids: Sequence[int], config: Any, stop_ids: frozenset[int], *, exact: bool
    ) -> Generator[int, None, None]:
        """Yield the ids of an answer, of which the first of ``stop_ids`` is the end. Closing it cancels the request.

        Args:
            prompt_ids: the prompt.
            config: a GenerationConfig.
            stop_ids: ids that end the answer and are not part of it.
            exact: whether the answer must be the same alone and among others, to the last bit.

        Raises:
            BackendError: OpenVINO failed, or the engine was closed.
        """
        blocks = -(-(len(prompt_ids) + config.max_new_tokens) // self._block) + 1
        request = _Request(prompt_ids, config, stop_ids, blocks=blocks, exact=exact)
        with self._lock:
            if self._closed:
                raise BackendError("the engine is closed")
            self._arrived.append(request)
        try:
            while (item := self._next(request)) is not _END:
                if isinstance(item, BaseException):
                    raise BackendError(clean(item)) from item
                yield item
        finally:
            self._leave(request)

    def close(self) -> None:
        """End all requests. Their consumers get a BackendError."""
        error = BackendError("the engine was closed")
        with self._lock:
            self._closed = True
            self._fail(error)
            while self._arrived:
                self._give(self._arrived.popleft(), error)

    def _next(self, request: _Request) -> Any:
        """Return the next item of a request, as soon as a step has given it one."""
        if not request.items.empty():
            return request.items.get()
        with self._lock:
            self._is_back(request)
            request.slow = False
            leads = request.items.empty() and not self._led
            self._led = self._led or leads
            request.waiting = not leads and request.items.empty()
        if not leads and (item := request.items.get()) is not _LEAD:
            return item
        self._lead(request)
        return request.items.get()

    def _lead(self, request: _Request) -> None:
        """Run steps until one gives ``request`` an item, then let another waiting thread lead."""
        try:
            if not self._active:
                self._gather()
            while request.items.empty():
                self._wait_for_consumers()
                self._step()
        finally:
            with self._lock:
                self._hand_over()

    def _gather(self) -> None:
        """Let requests that start at the same time arrive, so that their prompts are read in one step."""
        seen = 0
        while len(self._arrived) > seen:
            seen = len(self._arrived)
            time.sleep(_GATHER)

    def _hand_over(self) -> None:
        for request in itertools.chain(self._active, self._arrived):
            if request.waiting:
                request.waiting = False
                request.items.put(_LEAD)
                return
        self._led = False

    def _is_back(self, request: _Request) -> None:
        if request in self._awaited:
            self._awaited.discard(request)
            if not self._awaited and self._leader_waits:
                self._leader_waits = False
                self._everybody_back.release()

    def _wait_for_consumers(self) -> None:
        with self._lock:
            if not self._awaited:
                return
            self._leader_waits = True
        if self._everybody_back.acquire(timeout=_PATIENCE):
            return
        with self._lock:
            if self._leader_waits:
                self._leader_waits = False
                for request in self._awaited:
                    request.slow = True
                self._awaited.clear()
                return
        self._everybody_back.acquire()  # the last one came back just after the time had passed

    def _step(self) -> None:
        """Admit requests, run one step and give its tokens out. A failure ends the requests that were in the step."""
        self._admit()
        with self._lock:
            cancelled, self._cancelled = self._cancelled, []
            if not (self._active or cancelled):
                return
            alone = self._active[0] if len(self._active) == 1 else None
        try:
            companion = None  # a handle that nobody keeps cancels its request
            if alone is not None and (alone.exact or not alone.started):
                companion = self._pipeline.add_request(next(self._numbers), *_companion())
            self._pipeline.step()
            del companion
        except Exception as error:
            with self._lock:
                self._free += sum(request.blocks for request in cancelled)
                self._fail(error)
            return
        with self._lock:
            self._free += sum(request.blocks for request in cancelled)
            for request in list(self._active):
                self._collect(request)

    def _admit(self) -> None:
        """Add the requests that arrived, in their order, as far as the cache has room and the pipeline is right."""
        while True:
            with self._lock:
                if not self._arrived or self._closed:
                    return
                request = self._arrived[0]
                holds = self._host.holds(request.length, request.left)
                fits = request.blocks <= self._free and holds and self._reads_whole(request)
                if (self._active or self._cancelled) and not fits:
                    return
                self._arrived.popleft()
            try:
                if self._pipeline is None or not holds:
                    self._pipeline = None
                    self._pipeline = self._host.take(request.length, request.left)
                handle = self._pipeline.add_request(next(self._numbers), request.ids, request.config)
            except Exception as error:
                with self._lock:
                    self._give(request, error)
            else:
                with self._lock:
                    request.handle = handle
                    self._free -= request.blocks
                    self._active.append(request)
                    if self._closed:  # meanwhile
                        self._fail(BackendError("the engine was closed"))

    def _reads_whole(self, request: _Request) -> bool:
        """Return whether no prompt that has to be exact would be divided into steps otherwise than alone.

        OpenVINO quantizes the keys of 32 tokens together, so the bits depend on where a step ends.
        """
        unread = [other for other in self._active if not other.started]
        if any(other.exact and other.length > STEP for other in unread):
            return False
        rows = len(self._active) + sum(other.length for other in unread)
        return not request.exact or not self._active or rows + request.length <= STEP

    def _collect(self, request: _Request) -> None:
        """Give a request's consumer what the last step made."""
        handle = request.handle
        got = False
        while handle.can_read():
            for output in handle.read().values():
                for token in output.generated_ids:
                    if token in request.stop_ids:
                        self._end(request, _END)
                        return
                    got = request.started = True
                    request.left -= 1
                    self._give(request, token)
        if request.left == 0:
            self._end(request, _END)
        elif got:
            if not request.slow:
                self._awaited.add(request)
        elif (status := handle.get_status()) != _RUNNING:
            full = BackendError("the KV cache has no room for this request")
            self._end(request, _END if status == _FINISHED else full)

    def _end(self, request: _Request, item: Any) -> None:
        self._active.remove(request)
        self._free += request.blocks
        request.handle = None
        self._give(request, item)

    def _fail(self, error: Exception) -> None:
        """End all requests that the pipeline has, and forget the pipeline; the next request loads it again."""
        for request in list(self._active):
            self._end(request, error)
        self._free += sum(request.blocks for request in self._cancelled)
        self._cancelled.clear()
        self._awaited.clear()
        self._pipeline = None
        self._host.drop()

    def _leave(self, request: _Request) -> None:
        """Forget a request, and cancel it if it is not finished."""
        with self._lock:
            self._is_back(request)
            if request in self._arrived:
                self._arrived.remove(request)
            elif request in self._active:
                request.handle.cancel()
                self._active.remove(request)
                self._cancelled.append(request)
            while not request.items.empty():
                if request.items.get() is _LEAD:
                    self._hand_over()
            # The blocks of what was cancelled are freed by the next step, and nobody else will run one.
            flushes = bool(self._cancelled) and not (self._active or self._arrived or self._led)
            self._led = self._led or flushes
        if flushes:
            try:
                self._step()
            finally:
                with self._lock:
                    self._hand_over()

    @staticmethod
    def _give(request: _Request, item: Any) -> None:
        request.waiting = False
        request.items.put(item)


@functools.cache
def _companion() -> tuple[Any, Any]:
    """Return the prompt and the settings of a request that fills a row of one step."""
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = 1
    config.eos_token_id = 0
    config.stop_token_ids = {0}
    return openvino.Tensor(np.zeros((1, 1), dtype=np.int64)), config

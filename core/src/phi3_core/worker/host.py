"""The host's side: start a worker process for one backend, call it, and end it."""

from __future__ import annotations

import collections
import contextlib
import os
import subprocess
import weakref
from collections.abc import Generator
from multiprocessing import connection as connections
from typing import TYPE_CHECKING, Any

from phi3_core.config import debugged_hook, time_limit
from phi3_core.errors import BackendError
from phi3_core.pending import TICK_S

from .call import Result
from .calls import Calls
from .generation import Generation
from .lifetime import Tie, tie_to_host
from .output import Output
from .process import end_process, peak_memory, reserve_standard_streams, start_process
from .protocol import Channel

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from phi3_core.plugin import Backend
    from phi3_core.values import GenerationRequest, Progress

    from .call import Call


class Worker:
    """A worker process with one backend and at most one engine.

    Any thread may start a generation; everything else is for one thread at a time.

    The constructor starts the process without waiting for it. :meth:`open` then selects the backend without waiting for
    its import. Every call has a time limit: a worker that exceeds it is killed, and the call raises
    :class:`BackendError`. If the worker is generating other answers, only the call that exceeds it ends.
    """

    backend: Backend

    def __init__(self) -> None:
        self._host = os.getpid()
        self._disposable = False
        self._hooks: tuple[str, ...] | None = None
        self._begun: collections.deque[Call] = collections.deque()
        reserve_standard_streams()
        ours, theirs = connections.Pipe()
        with theirs:
            self._process = start_process(theirs.fileno())
        self._output = Output(self._process)
        self._calls = Calls(Channel(ours), self._process, self._output)
        # Kills the process if the host ends or does not close this object. Nothing that it needs refers to this object.
        self._finalizer = weakref.finalize(
            self, _end, self._process, ours, tie_to_host(self._process), self._host, self._calls
        )
        self._calls.kill = self._finalizer

    def open(self, backend: Backend, *, disposable: bool = False) -> Worker:
        """Start the import of a backend, without waiting for it.

        Args:
            backend: the backend to import.
            disposable: whether Ctrl-C during an answer may kill the process, because it is the only answer.

        Raises:
            UsageError: ``PHI3_DEBUG`` is malformed.
        """
        debugged = debugged_hook()
        self.backend = backend
        self._calls.backend_name = self._output.name = backend.name
        self._calls.limited = debugged is None or debugged[0] != backend.name
        self._disposable = disposable
        self.begin("open", backend=backend)
        return self

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks that the plugin implements. Waits for the import, and raises its errors."""
        if self._hooks is None:
            self.finish(time_limit("load"))
        return self._hooks or ()

    # --- calls ----------------------------------------------------------------------------------------------------

    def begin(self, verb: str, **arguments: object) -> None:
        """Start a call without waiting for its result, which :meth:`finish` returns."""
        self._begun.append(self._calls.begin(verb, **arguments))

    def finish(self, limit_s: float, progress: Progress | None = None, *, since: float | None = None) -> Any:
        """Return the result of the latest :meth:`begin`.

        Args:
            limit_s: the time limit in seconds. It restarts with each message, unless ``since`` is given.
            progress: called with the progress that the worker reports.
            since: the start of the time limit, from ``time.monotonic()``.

        Raises:
            BackendError: the call failed, exceeded the limit, or the process died.
            Phi3Error: another error that the plugin raised.
        """
        answer = None
        while self._begun:
            call = self._begun.popleft()
            call.limit(limit_s, since=since)
            answer = _wait_for_result(call, progress)
            if call.verb == "open":
                self._hooks = tuple(answer)
        return answer

    def call(self, verb: str, *, limit_s: float, progress: Progress | None = None, **arguments: object) -> Any:
        """Make a call and return its result: :meth:`begin`, then :meth:`finish`."""
        self.begin(verb, **arguments)
        return self.finish(limit_s, progress)

    def start(
        self,
        request: GenerationRequest,
        *,
        vocabulary: int | None = None,
        limits_s: tuple[float | None, float | None] = (None, None),
    ) -> Generation:
        """Start a generation. As many may run at once as the engine's ``max_concurrency``.

        Args:
            request: prompt ids, sampling settings and stop conditions.
            vocabulary: the number of token ids that there are; None if unknown. Any other id is an error.
            limits_s: seconds for the first token, and for each other one, where they are shorter than the configured
                time limits; None if they are not known.
        """
        call = self._calls.begin("generate", request=request, vocabulary=vocabulary)
        return Generation(self._calls, call, limits_s)

    def generate(self, request: GenerationRequest) -> Generator[int, None, None]:
        """Yield token ids as they are generated, blocking. Closing the iterator cancels the generation.

        Raises:
            BackendError: the generation failed, exceeded a time limit, or the process died.
            Phi3Error: another error that the plugin raised.
        """
        yield from self.start(request).ids()

    def interrupt(self) -> None:
        """End the process at once after Ctrl-C, if its engine is not needed again."""
        if self._disposable:
            self.kill()

    # --- state and end --------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the process is running, and belongs to this process and not to the one that it was forked from."""
        return self._finalizer.alive and os.getpid() == self._host and self._process.poll() is None

    @property
    def process(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def calls(self) -> Calls:
        """The calls of the process. They do not keep this object alive, which ends the process."""
        return self._calls

    def peak_memory(self) -> int | None:
        """Return the largest resident memory of the process so far, in bytes; None if the system does not tell."""
        return peak_memory(self._process.pid)

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines that the worker printed, including output of native code."""
        return self._output.last_lines

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill the process. Its calls end with an error."""
        self._finalizer()
        self._output.finish()

    def retire(self) -> None:
        """Kill the process as soon as it has no answer to generate."""
        self._calls.retire()

    def close(self) -> None:
        """End the process. An idle worker is given two seconds to close its engine."""
        if self.alive and not self._calls.pending:
            with contextlib.suppress(BackendError):
                self.call("close", limit_s=2.0)
        self.kill()


def _wait_for_result(call: Call, progress: Progress | None) -> Any:
    while True:
        while not call.arrived:
            call.wait(TICK_S)
        item = call.arrived.popleft()
        if isinstance(item, Result):
            return item.value
        if isinstance(item, Exception):
            raise item
        if progress is not None:
            progress(*item)


def _end(process: subprocess.Popen[bytes], connection: Any, tie: Tie, host: int, calls: Calls) -> None:
    if os.getpid() == host:  # not in a fork
        end_process(process, connection, tie)
        calls.stop()

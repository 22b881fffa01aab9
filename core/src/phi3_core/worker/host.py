"""The host's side: start a worker process for one backend, call it, and end it."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import subprocess
import threading
import time
import weakref
from collections.abc import Generator
from multiprocessing import connection as connections
from typing import TYPE_CHECKING, Any

from phi3_core.config import time_limit
from phi3_core.errors import BackendDiedError, BackendError, from_wire

from .lifetime import tie_to_host
from .process import end_process, exit_hint, exit_words, reserve_standard_streams, start_process
from .protocol import Channel

if TYPE_CHECKING:
    from types import TracebackType

    from phi3_core.plugin import Backend
    from phi3_core.values import GenerationRequest, Progress

logger = logging.getLogger("phi3_core")

_TICK_S = 0.2
_CANCEL_S = 0.25
_LONGEST_CANCEL_S = 2.0
_LAST_LINES = 20


class Worker:
    """A worker process with one backend and at most one engine. Only one thread may use it at a time.

    The constructor starts the process without waiting for it. :meth:`open` then selects the backend without waiting for
    its import. Every call has a time limit: a worker that exceeds it is killed, and the call raises
    :class:`BackendError`.
    """

    backend: Backend

    def __init__(self) -> None:
        self._host = os.getpid()
        self._disposable = False
        self._hooks: tuple[str, ...] | None = None
        self._pending: collections.deque[str] = collections.deque()
        self._last_lines: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
        reserve_standard_streams()
        ours, theirs = connections.Pipe()
        with theirs:
            self._process = start_process(theirs.fileno())
        self._channel = Channel(ours)
        self._reader = threading.Thread(target=self._read_output, name="phi3-worker-output", daemon=True)
        self._reader.start()
        # Kills the process if the host ends or does not close this object.
        self._finalizer = weakref.finalize(
            self, end_process, self._process, ours, tie_to_host(self._process), self._host
        )

    def open(self, backend: Backend, *, disposable: bool = False) -> Worker:
        """Start the import of a backend, without waiting for it.

        Args:
            backend: the backend to import.
            disposable: whether Ctrl-C during an answer may kill the process, because it is the only answer.
        """
        self.backend = backend
        self._disposable = disposable
        self.begin("open", backend=backend)
        return self

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks that the plugin implements. Waits for the import, and raises its errors."""
        if self._hooks is None:
            self.finish(time_limit("load"))
        return self._hooks or ()

    # --- one call -----------------------------------------------------------------------------------------------

    def begin(self, verb: str, **arguments: object) -> None:
        """Start a call without waiting for its result, which :meth:`finish` returns."""
        self._pending.append(verb)
        with contextlib.suppress(OSError):  # a dead worker is detected when its result is read
            self._channel.send({"call": verb, **arguments})

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
        answer = array = None
        while self._pending:
            message = self._receive(limit_s, since)
            if "array" in message:
                array = self._channel.receive_array(message["array"])
            elif "result" in message:
                answer = message["result"] if array is None else array
                if self._pending.popleft() == "open":
                    self._hooks = tuple(answer)
            elif "progress" in message and progress is not None:
                progress(*message["progress"])
        return answer

    def call(self, verb: str, *, limit_s: float, progress: Progress | None = None, **arguments: object) -> Any:
        """Make a call and return its result: :meth:`begin`, then :meth:`finish`."""
        self.begin(verb, **arguments)
        return self.finish(limit_s, progress)

    def _receive(self, limit_s: float, since: float | None = None) -> dict[str, Any]:
        """Return the next message; raise errors and log notices."""
        deadline = (time.monotonic() if since is None else since) + limit_s
        while True:
            try:
                # Waits in short steps, because on Windows Ctrl-C does not interrupt every wait.
                if not self._channel.waiting(_TICK_S):
                    # A child of a dead worker may keep the pipe open.
                    if self._process.poll() is not None and not self._channel.waiting():
                        raise self._died()
                    if time.monotonic() > deadline:
                        verb = self._pending[0]
                        self.kill()
                        raise BackendError(f"it did not answer {verb!r} within {limit_s:g} s and was stopped")
                    continue
                message = self._channel.receive()
            except (EOFError, OSError, ValueError) as error:
                raise self._died() from error
            if "notice" in message:
                logger.warning("%s: %s", self.backend.name, message["notice"])
            elif "error" in message:
                verb = self._pending.popleft()
                problem = from_wire(message["error"]["kind"], message["error"]["message"], message["error"].get("hint"))
                problem.__cause__ = RemoteTraceback(message["error"].get("traceback", ""))
                if verb == "open":  # without the plugin, no other call can succeed
                    self.kill()
                raise problem
            else:
                return message

    # --- generation -----------------------------------------------------------------------------------------------

    def generate(self, request: GenerationRequest) -> Generator[int, None, None]:
        """Yield token ids as they are generated.

        Closing the iterator cancels the generation; a worker that does not react to that is killed.

        Raises:
            BackendError: the generation failed, exceeded a time limit, or the process died.
            Phi3Error: another error that the plugin raised.
        """
        self.begin("generate", request=request)
        # The prefill can take minutes on a slow device; a token is faster.
        limit_s = time_limit("prefill")
        heeds_s = _CANCEL_S
        asked: float | None = None
        try:
            while "id" in (message := self._receive(limit_s)):
                if asked is not None:
                    # Engines stop between tokens, so slow ones get more time: reloading would take longer.
                    heeds_s = min(max(heeds_s, 3 * (time.monotonic() - asked)), _LONGEST_CANCEL_S)
                limit_s = time_limit("token")
                yield message["id"]
                asked = time.monotonic()
            self._pending.clear()
        except KeyboardInterrupt:
            if self._disposable:  # end at once: the engine is not needed again
                self.kill()
            raise
        finally:
            if self._pending and self._finalizer.alive:
                self._cancel(heeds_s)

    def _cancel(self, limit_s: float) -> None:
        try:
            self._channel.send({"cancel": True})
            deadline = time.monotonic() + limit_s
            while (left := deadline - time.monotonic()) > 0:
                if self._channel.waiting(left) and "result" in self._channel.receive():
                    self._pending.clear()
                    return
        except (EOFError, OSError, ValueError):
            pass
        self.kill()

    # --- state and end --------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the process is running, and belongs to this process and not to the one that it was forked from."""
        return self._finalizer.alive and os.getpid() == self._host and self._process.poll() is None

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines that the worker printed, including output of native code."""
        return tuple(self._last_lines)

    def __enter__(self) -> Worker:  # noqa: PYI034 - Python 3.10 has no Self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill the process."""
        self._finalizer()

    def close(self) -> None:
        """End the process. An idle worker is given two seconds to close its engine."""
        if self.alive and not self._pending:
            with contextlib.suppress(BackendError):
                self.call("close", limit_s=2.0)
        self.kill()

    def _died(self) -> BackendDiedError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2.0)
        self._reader.join(timeout=1.0)
        code = self._process.poll()
        self.kill()
        during = f" during {self._pending[0]}" if self._pending else ""
        error = BackendDiedError(f"its process died{during} ({exit_words(code)})", hint=exit_hint(code))
        error.last_lines = self.last_lines
        return error

    def _read_output(self) -> None:
        stream = self._process.stdout
        if stream is None:
            return
        with stream, contextlib.suppress(OSError, ValueError):
            # Bounded, because a driver may print megabytes without a line break.
            while line := stream.readline(4096):
                text = line.decode("utf-8", "replace").rstrip()
                if text:
                    self._last_lines.append(text)


class RemoteTraceback(Exception):  # noqa: N818 - a cause, never raised itself
    """The worker's traceback, set as the cause of an error so that it is printed above the host's."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])

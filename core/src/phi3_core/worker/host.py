"""The host's side: start a worker process for one backend, ask it things, and get rid of it."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Generator, Mapping
from multiprocessing import connection as connections
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3_core.config import time_limit
from phi3_core.errors import BackendDiedError, BackendError, from_wire

from .lifetime import tie_to_host
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
    """A process that holds one backend, and at most one engine. It is driven by one thread at a time.

    Starting it returns at once, and may be done before it is known which backend is wanted; :meth:`open` says that, and
    returns at once too, while the plugin is being imported. Every call has a time limit: a worker that
    does not answer within it is killed, and the call raises :class:`BackendError`.
    """

    backend: Backend

    def __init__(self) -> None:
        self._disposable = False
        self._hooks: tuple[str, ...] | None = None
        self._pending: collections.deque[str] = collections.deque()
        self._last_lines: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
        ours, theirs = connections.Pipe()
        with theirs:
            self._process = _start(theirs.fileno())
        self._channel = Channel(ours)
        self._job = tie_to_host(self._process)
        self._reader = threading.Thread(target=self._read_output, name="phi3-worker-output", daemon=True)
        self._reader.start()
        # A host that forgets to close, or ends, leaves nothing behind.
        self._finalizer = weakref.finalize(self, _end, self._process, ours, os.getpid())

    def open(self, backend: Backend, *, disposable: bool = False) -> Worker:
        """Have the worker import a backend, without waiting for it.

        ``disposable`` is whether Ctrl-C in the middle of an answer may end the process at once: no other answer is
        wanted of it.
        """
        self.backend = backend
        self._disposable = disposable
        self.begin("open", backend=backend)
        return self

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks that the plugin implements. Waits until it has been imported, and raises what that raises."""
        if self._hooks is None:
            self.finish(time_limit("load"))
        return self._hooks or ()

    # --- one call -----------------------------------------------------------------------------------------------

    def begin(self, verb: str, **arguments: object) -> None:
        """Ask for something without waiting for the answer, which :meth:`finish` takes."""
        self._pending.append(verb)
        with contextlib.suppress(OSError):  # a dead worker is noticed where its answer is read
            self._channel.send({"call": verb, **arguments})

    def finish(self, limit_s: float, progress: Progress | None = None, *, since: float | None = None) -> Any:
        """The answer to the latest :meth:`begin`.

        ``limit_s`` is how long the worker may go without any word; or, with ``since`` (of ``time.monotonic()``), how
        long it may take in all.
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
        """Ask and wait."""
        self.begin(verb, **arguments)
        return self.finish(limit_s, progress)

    def _receive(self, limit_s: float, since: float | None = None) -> dict[str, Any]:
        """One message; errors are raised and notices passed on here."""
        deadline = (time.monotonic() if since is None else since) + limit_s
        while True:
            try:
                # In short steps, because Windows does not interrupt a wait for Ctrl-C everywhere.
                if not self._channel.waiting(_TICK_S):
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
                if verb == "open":  # a plugin that could not be imported cannot do anything else
                    self.kill()
                raise problem
            else:
                return message

    # --- generation -----------------------------------------------------------------------------------------------

    def generate(self, request: GenerationRequest) -> Generator[int, None, None]:
        """Yield ids as they come. Closing the iterator cancels; a worker that does not heed that is killed."""
        self.begin("generate", request=request)
        # A prefill can take minutes on a slow device, and a token cannot.
        limit_s = time_limit("prefill")
        heeds_s = _CANCEL_S
        asked: float | None = None
        try:
            while "id" in (message := self._receive(limit_s)):
                if asked is not None:
                    # Engines stop between tokens: where one takes longer, so may that. Loading again would take more.
                    heeds_s = min(max(heeds_s, 3 * (time.monotonic() - asked)), _LONGEST_CANCEL_S)
                limit_s = time_limit("token")
                yield message["id"]
                asked = time.monotonic()
            self._pending.clear()
        except KeyboardInterrupt:
            if self._disposable:  # somebody is waiting at the console, and nobody for this engine
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

    # --- the end --------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the process is there to be asked."""
        return self._finalizer.alive and self._process.poll() is None

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines that the worker, or native code in it, printed."""
        return tuple(self._last_lines)

    def __enter__(self) -> Worker:  # noqa: PYI034 - Python 3.10 has no Self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """End the process now."""
        self._finalizer()

    def close(self) -> None:
        """End the process; an idle one may free its engine first."""
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
        error = BackendDiedError(f"its process died{during} ({_exit_words(code)})")
        error.last_lines = self.last_lines
        return error

    def _read_output(self) -> None:
        stream = self._process.stdout
        if stream is None:
            return
        with stream, contextlib.suppress(OSError, ValueError):
            # A bounded read: a driver may print megabytes without a line's end.
            while line := stream.readline(4096):
                text = line.decode("utf-8", "replace").rstrip()
                if text:
                    self._last_lines.append(text)


class RemoteTraceback(Exception):  # noqa: N818 - it is the cause that is shown, not an error that is raised
    """The traceback of the worker, so that it shows up above the host's own."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])


def _start(handle: int) -> subprocess.Popen[bytes]:
    """Start the worker, which inherits ``handle`` and nothing else, and cannot be reached by the console's signals."""
    options: dict[str, Any] = {}
    if sys.platform == "win32":
        os.set_handle_inheritable(handle, True)
        options["startupinfo"] = subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]})
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    else:
        options["pass_fds"] = [handle]
        options["start_new_session"] = True
    # -P keeps the current folder out of the way; Python 3.10 does not have it.
    flags = ["-P"] if sys.version_info >= (3, 11) else []
    return subprocess.Popen(
        [sys.executable, *flags, "-m", "phi3_core.worker", str(handle)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
        **options,
    )


def _environment() -> Mapping[str, str]:
    """The host's environment, and its module search path, so that both see the same distributions."""
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8:backslashreplace"}


def _end(process: subprocess.Popen[bytes], connection: Any, host: int) -> None:
    if os.getpid() != host:
        return  # a fork of the host ends, not the host
    with contextlib.suppress(OSError):
        connection.close()
    process.kill()
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5.0)


def _exit_words(code: int | None) -> str:
    if code is None:
        return "its end of the pipe is closed"
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}" if code < 2**16 else f"exit code 0x{code & 0xFFFFFFFF:08X}"

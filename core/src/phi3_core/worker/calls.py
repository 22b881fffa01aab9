"""The calls of a worker: each has a number, and a thread hands every message to the call that it belongs to.

The same thread enforces the time limits and notices that the process has died, so each call gets exactly one end: its
result, its error, or the reason why there is none.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import math
import os
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from phi3_core.errors import BackendDiedError, BackendError, Phi3Error, from_wire

from .call import Call, Result, token_of
from .output import Output
from .process import exit_hint, exit_words

if TYPE_CHECKING:
    from .protocol import Channel

logger = logging.getLogger("phi3_core")

_TICK_S = 0.2
_LONGEST_END_S = 10.0

Reason = Callable[[Call], Exception]
"""Makes the error that ends a call."""


class Generated(NamedTuple):
    """What a worker has generated, and generates now."""

    answers: int
    """Answers that have ended."""
    tokens: int
    """Tokens so far, of all answers."""
    running: int
    """Answers that have begun."""
    reading: int
    """Those of them without a token: the engine reads the prompt, or has not come to it."""


class Calls:
    """The open calls of a worker process, and the thread that reads its messages.

    Args:
        channel: the connection to the worker.
        process: the worker.
        output: what the worker prints.
    """

    def __init__(self, channel: Channel, process: subprocess.Popen[bytes], output: Output) -> None:
        self.backend_name = ""
        """The name of the backend, for its notices."""
        self.limited = True
        """Whether time limits apply; they do not while somebody debugs the backend."""
        self.kill: Callable[[], object] = self.stop
        """Ends the process and calls :meth:`stop`. Set by the owner."""
        self.at_generate: Callable[[], object] = _do_nothing
        """Called when an answer begins; does not block."""
        self.at_stop: Callable[[], object] = _do_nothing
        """Called when the process has been killed, in any thread, perhaps twice."""
        self._host = os.getpid()
        self._answers = self._tokens = 0
        self._channel = channel
        self._process = process
        self._output = output
        self._numbers = itertools.count(1)
        self._open: dict[int, Call] = {}
        self._cancelled: dict[int, float] = {}
        """For each call that was cancelled, the time at which it is abandoned."""
        # The garbage collector may close an answer in any thread, even in one that holds the lock.
        self._lock = threading.RLock()
        self._busy = threading.Event()
        self._over: Reason | None = None
        self._retired = False
        self._thread = threading.Thread(target=self._read, name="phi3-worker-calls", daemon=True)
        self._thread.start()

    # --- for callers ----------------------------------------------------------------------------------------------

    def begin(self, verb: str, **arguments: object) -> Call:
        """Start a call. If the process has died, the call has ended."""
        call = Call(next(self._numbers), verb)
        with self._lock:
            if self._over is not None:
                call.end(self._over(call))
                return call
            self._open[call.number] = call
            self._busy.set()
        if verb == "generate":
            self.at_generate()
        with contextlib.suppress(OSError):  # the reading thread notices it
            self._channel.send({"call": verb, "number": call.number, **arguments})
        return call

    def cancel(self, call: Call, limit_s: float) -> None:
        """End a ``generate`` early, and wait until it has ended.

        A worker that does not react within ``limit_s`` seconds is killed, unless it has other calls: then the call is
        abandoned, and keeps its place in the worker until its iterator ends.

        In a fork it does nothing: the call is another process's.
        """
        if os.getpid() != self._host:
            return
        with self._lock:
            if call.number not in self._open:
                return
            self._cancelled[call.number] = time.monotonic() + limit_s
        with contextlib.suppress(OSError):
            self._channel.send({"cancel": call.number})
        if threading.current_thread() is not self._thread:  # the garbage collector runs in any thread
            call.wait_for_end(limit_s + _LONGEST_END_S)

    def retire(self) -> None:
        """Kill the process as soon as nobody waits for a call of it."""
        with self._lock:
            self._retired = True
            if self._wanted:
                return
        self.kill()

    def join(self, timeout_s: float) -> None:
        """Wait up to ``timeout_s`` seconds for the end of the reading thread."""
        self._thread.join(timeout_s)

    @property
    def generated(self) -> Generated:
        """What has been generated so far."""
        with self._lock:
            answers, tokens = self._answers, self._tokens
            running = [call.timing.tokens for call in self._open.values() if call.verb == "generate"]
        return Generated(answers, tokens + sum(running), len(running), running.count(0))

    @property
    def pending(self) -> bool:
        """Whether calls are open."""
        return bool(self._open)

    @property
    def _wanted(self) -> bool:
        return any(not call.abandoned for call in self._open.values())

    def stop(self) -> None:
        """End the open calls and the thread, because the process has been killed."""
        self.at_stop()
        for call in self._close(_ended):
            call.end(_ended(call))

    # --- the reading thread ---------------------------------------------------------------------------------------

    def _read(self) -> None:
        next_look = 0.0
        while self._over is None:
            if not self._open:
                self._rest()
                continue
            try:
                if self._channel.waiting(_TICK_S):
                    self._hand_over(self._channel.receive())
                # A child of a dead worker may keep the pipe open.
                elif self._process.poll() is not None and not self._channel.waiting():
                    self._die()
            except (EOFError, OSError, ValueError, TypeError, KeyError, AttributeError):  # or no message of ours
                self._die()
            if (now := time.monotonic()) >= next_look:
                next_look = now + _TICK_S
                self._look_at_limits(now)

    def _rest(self) -> None:
        """Wait for the next call."""
        with self._lock:
            if not self._open and self._over is None:
                self._busy.clear()
        self._busy.wait()

    def _hand_over(self, message: dict[str, Any]) -> None:
        if "notice" in message:
            logger.warning("%s: %s", self.backend_name, message["notice"])
            return
        call = self._open.get(message["of"])
        if call is None:
            return
        if "id" in message:
            if not call.abandoned:
                call.put(token_of(message))
        elif "progress" in message:
            call.put(list(message["progress"]))
        elif "array" in message:
            call.array = self._channel.receive_array(message["array"])
        elif "result" in message:
            self._end(call, Result(message["result"] if call.array is None else call.array))
        elif "error" in message:
            error = message["error"]
            if call.verb == "open":  # without the plugin, no other call can succeed
                self._fail(lambda _: _problem(error))
            else:
                self._end(call, _problem(error))

    def _end(self, call: Call, item: Result | Exception) -> None:
        with self._lock:
            self._open.pop(call.number, None)
            self._cancelled.pop(call.number, None)
            if call.verb == "generate":
                self._answers, self._tokens = self._answers + 1, self._tokens + call.timing.tokens
            useless = not self._wanted and (self._retired or bool(self._open))
        if useless:
            self.kill()
        call.end(item)

    def _look_at_limits(self, now: float) -> None:
        for call in tuple(self._open.values()):
            limit_s = call.exceeded(now) if self.limited and not call.abandoned else None
            if now >= self._cancelled.get(call.number, math.inf):
                self._abandon(call)
            elif limit_s is not None:
                self._abandon(call, functools.partial(_exceeded, limit_s))

    def _abandon(self, call: Call, reason: Reason | None = None) -> None:
        """Give a call up. That costs the process, unless somebody waits for another ``generate``."""
        with self._lock:
            self._cancelled.pop(call.number, None)
            others = any(not other.abandoned for other in self._open.values() if other is not call)
            if others and call.verb == "generate":
                call.abandon(reason and reason(call))
        if not call.abandoned:
            self._fail(reason or _ended)
        elif reason is not None:
            with contextlib.suppress(OSError):
                self._channel.send({"cancel": call.number})

    def _die(self) -> None:
        """End all calls because the process has died."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2.0)
        self._output.join()
        code, last_lines = self._process.poll(), self._output.last_lines

        def reason(call: Call) -> Exception:
            error = BackendDiedError(f"its process died during {call.verb} ({exit_words(code)})", hint=exit_hint(code))
            error.last_lines = last_lines
            return error

        self._fail(reason)

    def _fail(self, reason: Reason) -> None:
        """Kill the process, and end all calls for a reason."""
        with self._lock:
            calls = self._close(reason)
        self.kill()
        for call in calls:
            call.end(reason(call))

    def _close(self, reason: Reason) -> tuple[Call, ...]:
        """Take no more calls, and return the open ones."""
        with self._lock:
            self._over = self._over or reason
            calls = tuple(self._open.values())
            self._open.clear()
            self._cancelled.clear()
            self._busy.set()
        return calls


def _do_nothing() -> None:
    """Do nothing."""


def _exceeded(limit_s: float, call: Call) -> BackendError:
    return BackendError(f"it did not answer {call.verb!r} within {limit_s:g} s and was stopped")


def _ended(call: Call) -> BackendError:
    return BackendDiedError(f"its process was ended during {call.verb}")


def _problem(error: dict[str, Any]) -> Phi3Error:
    problem = from_wire(error["kind"], error["message"], error.get("hint"))
    problem.__cause__ = RemoteTraceback(error.get("traceback", ""))
    return problem


class RemoteTraceback(Exception):  # noqa: N818 - a cause, never raised itself
    """The worker's traceback, set as the cause of an error so that it is printed above the host's."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])

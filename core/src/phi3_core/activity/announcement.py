"""Announce a loaded engine to ``phi3 top``, from a thread that costs its answers nothing."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time

from attrs import evolve

from phi3_core import files
from phi3_core.turns import Turns
from phi3_core.worker.calls import Calls

from . import records, running
from .running import RunningEngine

logger = logging.getLogger("phi3_core")

PERIOD_S = 0.5
"""How often the file is written while the engine answers."""


class Announcement:
    """The file of an engine, from its loading to the end of its process.

    A thread writes it, twice a second while answers are generated, and sleeps otherwise. It refers to the engine's
    calls, which do not keep the worker alive.

    Args:
        engine: the engine.
        calls: the calls of its worker, which tell when answers begin and the process ends.
        period_s: the seconds between two writings while the engine answers.
    """

    def __init__(self, engine: RunningEngine, calls: Calls, *, period_s: float = PERIOD_S) -> None:
        self.turns: Turns | None = None
        """The turns at the engine, which know who waits."""
        self._engine, self._calls, self._period_s = engine, calls, period_s
        self._folder = running.folder()
        # The garbage collector may end a worker in any thread, even in one that holds the lock.
        self._lock = threading.RLock()
        self._closed = False
        # Its put() may be called anywhere, as no lock's release may.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._written: RunningEngine | None = None
        self._tokens, self._time = 0, time.monotonic()
        calls.at_generate = self._begin_answer
        calls.at_stop = self.close
        threading.Thread(target=self._run, name="phi3-announcement", daemon=True).start()

    def close(self) -> None:
        """Remove the file. Later calls do nothing."""
        with self._lock:
            closed, self._closed = self._closed, True
            written, self._written = self._written, None
        if closed:
            return
        self._wake.put(None)
        if written is not None:
            with contextlib.suppress(OSError):  # a store that is read-only by now
                files.unlink(records.file_of(written, self._folder))

    def _begin_answer(self) -> None:
        self._wake.put(None)

    def _run(self) -> None:
        self._engine = running.located(self._engine)
        while not self._closed:
            try:
                busy = self._write()
            except OSError as error:  # a store that is read-only, or full
                logger.debug("phi3 top will not show the engine: %s", error)
                return
            if busy:
                time.sleep(self._period_s)
            else:
                self._wait_for_answer()

    def _wait_for_answer(self) -> None:
        self._wake.get()
        with contextlib.suppress(queue.Empty):
            while True:
                self._wake.get_nowait()

    def _write(self) -> bool:
        """Write the file, unless it is closed, and return whether the engine answers."""
        now = self._now()
        with self._lock:
            if self._closed:
                return False
            # Set before it is written, since whoever closes this may interrupt the writing.
            before, self._written = self._written, now
            if now != before:
                running.write(now, self._folder)
            if self._closed:  # by the garbage collector, in this thread
                files.unlink(records.file_of(now, self._folder))
        return now.state != "idle"

    def _now(self) -> RunningEngine:
        generated, time_now = self._calls.generated, time.monotonic()
        seconds, new = time_now - self._time, generated.tokens - self._tokens
        self._tokens, self._time = generated.tokens, time_now
        waiting = 0 if self.turns is None else self.turns.waiting
        state = "idle"
        if generated.running or waiting:
            state = "reading" if generated.running == generated.reading else "generating"
        return evolve(
            self._engine,
            state=state,
            running=generated.running,
            waiting=waiting,
            answers=generated.answers,
            tokens=generated.tokens,
            tokens_per_s=round(new / seconds, 2) if state == "generating" and seconds > 0 else None,
        )

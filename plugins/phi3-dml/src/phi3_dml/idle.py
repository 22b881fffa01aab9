"""Work that an engine does while nothing is asked of it."""

from __future__ import annotations

import threading
from collections.abc import Iterable

DELAY_S = 0.25
"""Requests that follow each other faster than this are not held up by such work."""


class IdleWork:
    """Runs steps in a thread, one after the other, until it is stopped."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, steps: Iterable[None]) -> None:
        """Start to run ``steps`` after :data:`DELAY_S`, instead of earlier ones. They must not raise."""
        self.stop()
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, args=(steps,), name="phi3-dml-idle", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current step, and wait for its end."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def wait(self) -> None:
        """Wait until all steps are done."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, steps: Iterable[None]) -> None:
        if self._stopped.wait(DELAY_S):
            return
        for _ in steps:
            if self._stopped.is_set():
                return

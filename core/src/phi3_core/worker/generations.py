"""The worker's generations: which run, each in a thread of its own, which wait, and which are cancelled."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Generations:
    """The open ``generate`` calls of a worker, by number."""

    def __init__(self) -> None:
        self._cancelled: dict[int, bool] = {}
        self._waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads = 0

    def accept(self, number: int) -> None:
        """Note that a call has arrived, so that it can be cancelled."""
        self._cancelled[number] = False

    def cancel(self, number: int) -> None:
        """Cancel a call; one that has ended is left alone."""
        if number in self._cancelled:
            self._cancelled[number] = True

    def is_cancelled(self, number: int) -> bool:
        """Return whether a call has been cancelled."""
        return self._cancelled.get(number, False)

    def end(self, number: int) -> None:
        """Forget a call."""
        self._cancelled.pop(number, None)

    def run(self, generate: Callable[[], None], most: int) -> None:
        """Run one generation: here, or in another thread if the engine takes several at once.

        Args:
            generate: runs the generation to its end, and does not raise.
            most: how many the engine takes at once. Others wait, in the order of arrival.
        """
        if most == 1:
            # In the thread that has loaded the engine: some runtimes work in one thread only.
            generate()
            return
        self._waiting.put(generate)
        if self._threads < most:
            self._threads += 1
            # Not a pool of the standard library: the process would wait for a thread that hangs in a driver.
            threading.Thread(target=self._work, name=f"phi3-generate-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        while True:
            self._waiting.get()()

"""How long a run will still take, by how long it took so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from .measure import Settings
from .tasks import Task


class Remaining:
    """Estimates the time that is left.

    Args:
        settings: what is measured of each item.
        items: the number of devices and precisions.
        clock: returns the time in seconds.
    """

    def __init__(self, settings: Settings, items: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._items_left = items
        self._clock = clock
        self._item = self._total((1, settings.at_once))
        self._done = self._left = self._running = 0.0
        self._spent = 0.0
        self._since = clock()

    def _total(self, levels: Sequence[int]) -> float:
        settings = self._settings
        return sum(settings.runs(level) * task.effort(level) for level in levels for task in settings.tasks)

    def begin_item(self, levels: Sequence[int]) -> None:
        """Note that an engine is loaded, and what will be measured of it."""
        self._item = self._left = self._total(levels)
        self._running = 0.0
        self._since = self._clock()

    def before_run(self, task: Task, at_once: int) -> str:
        """Note that a run ends and another one begins, and return the time that is left, as words."""
        now = self._clock()
        if self._running:
            self._spent += now - self._since
        self._done, self._left = self._done + self._running, self._left - self._running
        self._since, self._running = now, task.effort(at_once)
        if not self._done:
            return ""
        return f"; {_words(self._spent / self._done * (self._left + (self._items_left - 1) * self._item))} left"

    def end_item(self) -> None:
        """Note that an item has ended, measured to the end or not."""
        self._items_left -= 1
        self._running = self._left = 0.0


def _words(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} min"

"""What an answer in progress yields while there is no text: what it waits for, or that its next step takes long.

The steps of an answer are one generator, for threads and tasks alike. A thread waits by blocking. A task is woken by a
callback, and runs what takes long in another thread.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Literal, Protocol


class Awaited(Protocol):
    """An event that an answer waits for: its turn, or the next message about it."""

    def wait(self, timeout_s: float) -> None:
        """Block until the event, or for ``timeout_s`` seconds."""
        ...

    def notify(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` at the event, in any thread, perhaps at once, and perhaps twice."""
        ...


class Step(enum.Enum):
    """Announces a step that may block its thread."""

    BLOCKING = enum.auto()


TICK_S = 0.2
"""Threads wait in steps of so many seconds, because on Windows Ctrl-C does not interrupt every wait."""
BLOCKING: Literal[Step.BLOCKING] = Step.BLOCKING
"""The generator's next step may take long, such as loading an engine."""
Pending = Awaited | Literal[Step.BLOCKING]
"""What is yielded instead of text or ids."""

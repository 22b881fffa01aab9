"""What a session knows of the answers that it generates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from .loading import LoadedEngine
    from .replies import Attempt
    from .turns import Turn
    from .values import Device

MOST_RESTARTS = 3
"""How often a device is started again for one answer."""


@define(eq=False)
class Answer:
    """An answer that is being generated."""

    turn: Turn
    """Its turn at the engine."""
    engine: LoadedEngine | None = None
    """The engine that generates it now; None before it begins."""
    attempts: list[Attempt] = field(factory=list)
    """The attempts that failed before."""
    _failed_after: dict[str, list[int]] = field(factory=dict)
    """For each device that failed while it generated the answer, the tokens that there were."""

    def may_restart(self, device: Device, tokens: int) -> bool:
        """Note that a device failed after so many tokens, and return whether it may be tried again for this answer."""
        before = self._failed_after.setdefault(str(device), [])
        may = len(before) < MOST_RESTARTS and (not before or tokens > before[-1])
        before.append(tokens)
        return may

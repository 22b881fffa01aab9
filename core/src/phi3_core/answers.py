"""What a session knows of the answers that it generates, and of the engines that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, evolve, field

if TYPE_CHECKING:
    from .loading import LoadedEngine
    from .replies import Attempt
    from .turns import Turn
    from .values import Device, GenerationRequest

MOST_RESTARTS = 3
"""How often a device is started again for one answer."""
MOST_REPEATS = 2
"""How often an answer may fail at the same token if others may have been the cause; alone it may not."""


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

    def may_restart(self, device: Device, tokens: int, *, alone: bool = True) -> bool:
        """Note that a device failed after so many tokens, and return whether it may be tried again for this answer.

        Args:
            device: the device.
            tokens: the tokens that there are.
            alone: whether the device generated no other answer, which may have been the cause.
        """
        before = self._failed_after.setdefault(str(device), [])
        repeats = sum(tokens <= each for each in before)
        may = len(before) < MOST_RESTARTS and repeats < (1 if alone else MOST_REPEATS)
        before.append(tokens)
        return may


class Answering:
    """The answers that are being generated. Any thread may call the methods."""

    def __init__(self) -> None:
        self._alone: dict[Answer, bool] = {}
        """Whether each has been alone all along."""

    def begin(self, answer: Answer) -> None:
        """Add an answer."""
        self._alone[answer] = True
        if len(self._alone) > 1:  # none of them is alone any more
            self._alone.update(dict.fromkeys(tuple(self._alone), False))

    def end(self, answer: Answer) -> bool:
        """Remove an answer if it is there, and return whether it has been alone all along."""
        return self._alone.pop(answer, False)

    def on_trial(self, engine: LoadedEngine) -> frozenset[Answer]:
        """Return the answers of an engine that are on trial."""
        return frozenset(each for each in tuple(self._alone) if each.engine is engine and each.turn.on_trial)


def rest_of(request: GenerationRequest, made: list[int]) -> GenerationRequest:
    """Return the request for the rest of an answer of which the ids ``made`` have been generated."""
    if not made:
        return request
    left = request.max_new_tokens - len(made)
    return evolve(request, prompt_ids=(*request.prompt_ids, *made), max_new_tokens=left, answered=len(made))

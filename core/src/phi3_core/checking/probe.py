"""Ask an engine for the next tokens of known texts, through ``generate`` alone and within a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from phi3_core.values import GenerationRequest

if TYPE_CHECKING:
    from phi3_core.worker.host import Worker


FEWEST_STEPS = 10
"""Steps that are taken however long they last: on a busy machine, too, a check is to find out something."""


class Probe:
    """Greedy answers of an engine.

    Args:
        worker: the worker with the engine.
        vocabulary: the number of token ids; None if unknown.
        context_length: the most tokens of prompt and answer together.
        answer_tokens: the least ``max_new_tokens`` of a request, where an engine prepares for that many. No more ids
            than wanted are generated.
        budget_s: the seconds after which no further question is asked, once there are :data:`FEWEST_STEPS`.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        vocabulary: int | None,
        context_length: int,
        answer_tokens: int = 1,
        budget_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._worker, self._vocabulary, self._context = worker, vocabulary, context_length
        self._answer_tokens = answer_tokens
        self._clock = clock
        self._deadline = clock() + budget_s
        self._started = clock()
        self._prefill_s, self._step_s = 0.0, 0.0
        self._steps = 0

    def extend(self, budget_s: float) -> None:
        """Let the time for questions be at least ``budget_s`` from the start."""
        self._deadline = max(self._deadline, self._started + budget_s)

    def affords(self, prompt: int, steps: int) -> bool:
        """Return whether a question fits the context and the time that is left, judged by those before."""
        if prompt + steps > self._context:
            return False
        expected_s = prompt * self._prefill_s + steps * self._step_s
        return self._steps < FEWEST_STEPS or self._clock() + expected_s <= self._deadline

    def ask(self, prompt: Sequence[int], steps: int) -> list[int]:
        """Return up to ``steps`` ids after ``prompt``; fewer if the engine ends, or the time is over.

        Raises:
            BackendError: the engine failed.
        """
        most = max(steps, min(self._answer_tokens, self._context - len(prompt)))
        request = GenerationRequest(prompt_ids=tuple(prompt), max_new_tokens=most, lookup="off")
        found: list[int] = []
        started = first = self._clock()
        ids = self._worker.start(request, vocabulary=self._vocabulary).ids()
        try:
            for token in ids:
                now = self._clock()
                first = first if found else now
                found.append(token)
                self._steps += 1
                if len(found) == steps or (self._steps >= FEWEST_STEPS and now > self._deadline):
                    break
        finally:
            ids.close()  # type: ignore[attr-defined]
        if found:
            self._prefill_s = (first - started) / len(prompt)
            self._step_s = (self._clock() - first) / max(1, len(found) - 1)
        return found

    def follow(self, prompt: Sequence[int], expected: Sequence[int]) -> list[int]:
        """Return what the engine takes for the next id at each step of ``expected``, given those before it.

        After another id than the expected one, it is asked anew behind the expected one. The result is shorter than
        ``expected`` if the time is over, or the engine ends.

        Raises:
            BackendError: the engine failed.
        """
        given: list[int] = []
        while len(given) < len(expected):
            before = [*prompt, *expected[: len(given)]]
            left = expected[len(given) :]
            if not self.affords(len(before), len(left)):
                break
            answer = self.ask(before, len(left))
            if not answer:
                break
            for token, wanted in zip(answer, left, strict=False):
                given.append(token)
                if token != wanted:
                    break
            else:
                if len(answer) < len(left):
                    break
        return given

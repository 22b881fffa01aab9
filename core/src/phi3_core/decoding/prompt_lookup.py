"""Propose the next tokens of an answer from its own text, where they may have occurred before.

Prompt lookup decoding (Saxena, 2023, https://github.com/apoorvumang/prompt-lookup-decoding): what followed the last
tokens earlier is likely to follow them again, if the answer quotes. Several proposed tokens are confirmed in one
forward pass, which costs little more than one token; those that are wrong cost that little and give nothing.

So a proposal needs an earlier occurrence of several tokens, and the more of them were the same, the more are proposed.
How many are needed doubles each time that nothing of a proposal was right: text that does not quote soon has none left
to pay for. Everything depends on the ids alone, so that an answer is repeatable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

LEAST = 4
"""Tokens that must have occurred before, at first. Answers often begin with three words of the question."""
_MOST_NEEDED = 48
_OCCURRENCES = 8
"""Earlier occurrences that are compared, the latest ones."""


class PromptLookup:
    """Proposals for one answer.

    Args:
        ids: the prompt and the answer so far, which the caller extends.
        most: the largest number of tokens to propose at a time.
    """

    def __init__(self, ids: Sequence[int], most: int) -> None:
        self._ids = ids
        self._most = most
        self._needed = LEAST
        self._ends: dict[tuple[int, ...], deque[int]] = {}
        """Where the tokens after each ``LEAST`` tokens begin."""
        self._indexed = LEAST

    def propose(self, room: int) -> tuple[int, ...]:
        """Return the tokens that may come next, none if the text does not suggest any.

        Args:
            room: the largest number of tokens that can be used.
        """
        ids = self._ids
        # What follows the last tokens is not known yet: they are indexed the next time.
        for end in range(self._indexed, len(ids)):
            key = tuple(ids[end - LEAST : end])
            self._ends.setdefault(key, deque(maxlen=_OCCURRENCES)).append(end)
        self._indexed = max(LEAST, len(ids))
        same, start = max(
            ((self._same(end), end) for end in self._ends.get(tuple(ids[-LEAST:]), ())),
            default=(0, -1),
        )
        count = min(same, self._most, room) if same >= self._needed else 0
        # Where the text ends, it may go on to repeat itself.
        return tuple(ids[start + after % (len(ids) - start)] for after in range(count))

    def learn(self, proposed: int, confirmed: int) -> None:
        """Take note of how many tokens of a proposal were right."""
        if confirmed == proposed:
            self._needed = max(LEAST, self._needed // 2)
        elif confirmed == 0:
            self._needed = min(_MOST_NEEDED, self._needed * 2)

    def _same(self, end: int) -> int:
        """Return how many tokens before ``end`` are the last ones of the text, as far as it matters."""
        ids, limit = self._ids, min(end, _MOST_NEEDED)
        same = LEAST
        while same < limit and ids[end - 1 - same] == ids[-1 - same]:
            same += 1
        return same

"""Choose known answers from the logits that the quality of an artifact was measured with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .known import Chain, KnownAnswers, Step

CHAINS = 16
LONGEST = 12
"""Steps of a chain."""
_FIRST = 16
"""Ids before the first chain, so that there is something to predict from."""
_KEPT = 8
"""Tokens that are kept of each step."""


def choose(ids: Sequence[int], logits: npt.NDArray[Any]) -> KnownAnswers | None:
    """Return the known answers of an artifact, or None if the text is too short.

    A device generates one answer for each chain. As long as the likeliest token is that of the text, the next step's
    prompt is known, too. So the chains with the most steps are taken, one from each part of the text.

    Args:
        ids: token ids of the text.
        logits: the artifact's logits after each of them, ``[ids, vocabulary]``.
    """
    text = np.asarray(ids)
    best = np.fromiter((row.argmax() for row in logits), np.int64, len(text))
    follows = best[:-1] == text[1:]
    parts = np.array_split(np.arange(_FIRST - 1, len(text) - 1), CHAINS)
    chains, end = [], 0
    for part in (each for each in parts if len(each)):
        lengths = {int(place): _length(follows, int(place)) for place in part if place >= end}
        if not lengths:
            continue
        start = max(lengths, key=lambda place: lengths[place])
        end = start + lengths[start]
        steps = tuple(_step(logits[place]) for place in range(start, end))
        chains.append(Chain(start + 1, steps))
    if not chains:
        return None
    used = max(chain.prompt + len(chain.steps) - 1 for chain in chains)
    return KnownAnswers(tuple(int(each) for each in ids[:used]), tuple(chains))


def _length(follows: npt.NDArray[np.bool_], start: int) -> int:
    length = 1
    while length < LONGEST and start + length < len(follows) and follows[start + length - 1]:
        length += 1
    return length


def _step(row: npt.NDArray[Any]) -> Step:
    values = row.astype(np.float64)
    kept = np.argsort(-values, kind="stable")[:_KEPT]
    return Step(tuple(map(int, kept)), tuple(round(float(values[kept[0]] - values[each]), 3) for each in kept))

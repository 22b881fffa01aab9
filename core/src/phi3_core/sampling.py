"""The next token from logits, for engines whose runtimes leave the choice to their caller.

Penalty, temperature, top-k, nucleus, draw: in the order that transformers has them. numpy is imported here and so by
nobody in core: backends import this module where they generate.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from .values import Sampling

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer[Any]]


class Sampler:
    """Picks the tokens of one answer. Greedy with a temperature of 0; the same draws for the same seed.

    ``ids`` are the tokens that count as repeated from the start: the prompt's.
    """

    def __init__(self, sampling: Sampling, ids: Iterable[int]) -> None:
        self._sampling = sampling
        self._random = np.random.default_rng(sampling.seed)
        self._seen = set(ids) if sampling.repetition_penalty != 1 else set()

    def pick(self, logits: npt.NDArray[Any]) -> int:
        """A token for ``logits``, ``[vocabulary]``; it counts as seen from now on."""
        penalized = self._sampling.repetition_penalty != 1
        scores = self._penalized(logits) if penalized else logits
        token = int(scores.argmax()) if self._sampling.temperature == 0 else self._draw(scores)
        if penalized:
            self._seen.add(token)
        return token

    def _penalized(self, logits: npt.NDArray[Any]) -> Floats:
        """Divide what is positive and multiply what is negative, as in CTRL (Keskar et al., 2019)."""
        scores = logits.astype(np.float64)
        indices = np.fromiter(self._seen, np.int64, len(self._seen))
        indices = indices[indices < len(scores)]
        penalty, seen = self._sampling.repetition_penalty, scores[indices]
        scores[indices] = np.where(seen > 0, seen / penalty, seen * penalty)
        return scores

    def _draw(self, logits: npt.NDArray[Any]) -> int:
        """By probability, among the k likeliest and then the fewest that together reach p."""
        scores = (logits.astype(np.float64) - float(logits.max())) / self._sampling.temperature
        indices = self._candidates(scores)
        probs = np.exp(scores[indices])
        probs /= probs.sum()
        if self._sampling.top_p < 1:
            order = np.argsort(-probs, kind="stable")
            indices, probs = indices[order], probs[order]
            last = int(np.searchsorted(np.cumsum(probs), self._sampling.top_p)) + 1
            indices, probs = indices[:last], probs[:last]
        reached = np.cumsum(probs)
        index = int(np.searchsorted(reached, self._random.random() * reached[-1], "right"))
        return int(indices[min(index, len(indices) - 1)])

    def _candidates(self, scores: Floats) -> Indices:
        """The k likeliest by their ids, all if k is 0; of equals the lower id first."""
        count = self._sampling.top_k
        if not 0 < count < len(scores):
            return np.arange(len(scores))
        least = np.partition(scores, -count)[-count]
        above, equal = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
        return np.sort(np.concatenate([above, equal[: count - len(above)]]))

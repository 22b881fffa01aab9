"""The next token from logits: penalty, temperature, top-k, nucleus, draw, in the order that transformers has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from phi3_core.values import Sampling


class Picker:
    """Picks the tokens of one answer. Greedy with a temperature of 0; the same draws for the same seed."""

    def __init__(self, sampling: Sampling, prompt: Iterable[int]) -> None:
        self._sampling = sampling
        self._seen = set(prompt)
        self._random = np.random.default_rng(sampling.seed)

    def pick(self, logits: npt.NDArray[Any]) -> int:
        """A token for ``logits``, ``[vocabulary]``; it counts as seen from now on."""
        scores = logits.astype(np.float64)
        if self._sampling.repetition_penalty != 1:
            places = np.fromiter(self._seen, np.int64, len(self._seen))
            seen = scores[places]
            penalty = self._sampling.repetition_penalty
            scores[places] = np.where(seen > 0, seen / penalty, seen * penalty)
        token = int(scores.argmax()) if self._sampling.temperature == 0 else self._draw(scores)
        self._seen.add(token)
        return token

    def _draw(self, scores: npt.NDArray[np.float64]) -> int:
        # Likeliest first, the lower id before the higher where they are equal.
        order = np.argsort(-scores, kind="stable")
        if self._sampling.top_k:
            order = order[: self._sampling.top_k]
        likelihoods = np.exp((scores[order] - scores[order[0]]) / self._sampling.temperature)
        reached = np.cumsum(likelihoods / likelihoods.sum())
        if self._sampling.top_p < 1:
            order = order[: int(np.searchsorted(reached, self._sampling.top_p)) + 1]
            reached = reached[: len(order)]
        drawn = self._random.random() * reached[-1]
        place = min(int(np.searchsorted(reached, drawn, side="right")), len(order) - 1)
        return int(order[place])

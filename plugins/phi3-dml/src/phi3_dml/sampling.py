"""Picking the next token from its logits, for providers whose generators can be fed token by token.

Done here instead of in onnxruntime-genai, whose settings belong to a generator: a kept cache would be of use to
requests with the same settings only, and its random numbers would go on where the last answer stopped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from phi3_core.values import Sampling

Logits = npt.NDArray[np.float32]


class Sampler:
    """One request's choices. ``ids`` are the tokens that count as repeated from the start: the prompt's."""

    def __init__(self, sampling: Sampling, ids: Iterable[int]) -> None:
        self.sampling = sampling
        self.random = np.random.default_rng(
            int.from_bytes(os.urandom(8), "little") if sampling.seed is None else sampling.seed
        )
        self.seen = set(ids) if sampling.repetition_penalty != 1 else set()

    def pick(self, logits: Logits) -> int:
        """The next token, given ``[vocabulary]``; it counts as seen from now on."""
        sampling = self.sampling
        if self.seen:
            logits = self._penalized(logits)
        token = int(logits.argmax()) if sampling.temperature == 0 else self._draw(logits)
        if sampling.repetition_penalty != 1:
            self.seen.add(token)
        return token

    def _penalized(self, logits: Logits) -> Logits:
        """Divide what is positive and multiply what is negative, as in CTRL (Keskar et al., 2019)."""
        changed: Logits = logits.copy()
        places = np.fromiter(self.seen, np.int64)
        places = places[places < len(changed)]
        penalty = np.float32(self.sampling.repetition_penalty)
        values = changed[places]
        changed[places] = np.where(values > 0, values / penalty, values * penalty)
        return changed

    def _draw(self, logits: Logits) -> int:
        """By probability, among the k likeliest and then the fewest that together reach p."""
        sampling = self.sampling
        scores = (logits.astype(np.float64) - float(logits.max())) / sampling.temperature
        places = np.arange(len(scores))
        if 0 < sampling.top_k < len(scores):
            places = np.argpartition(scores, -sampling.top_k)[-sampling.top_k :]
        chances = np.exp(scores[places])
        chances /= chances.sum()
        if sampling.top_p < 1:
            order = np.argsort(-chances, kind="stable")
            last = int(np.searchsorted(np.cumsum(chances[order]), sampling.top_p)) + 1
            places, chances = places[order[:last]], chances[order[:last]]
            chances /= chances.sum()
        place = int(np.searchsorted(np.cumsum(chances), self.random.random(), "right"))
        return int(places[min(place, len(places) - 1)])

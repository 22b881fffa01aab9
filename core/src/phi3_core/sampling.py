"""Choose the next token from logits, for engines whose runtimes do not sample.

Repetition penalty, temperature, top-k, top-p and draw, in the order that transformers applies them. This module imports
numpy and is used by backends only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from .values import Sampling

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer[Any]]
_NUCLEUS = (128, 4096)
"""How many of the largest probabilities are sorted, until they reach top-p."""


class Sampler:
    """Chooses the tokens of one answer: greedily with a temperature of 0, repeatably with a seed.

    Args:
        sampling: the sampling settings.
        ids: token ids of the prompt, to which the repetition penalty applies.
    """

    def __init__(self, sampling: Sampling, ids: Iterable[int]) -> None:
        self._sampling = sampling
        self._random = np.random.default_rng(sampling.seed)
        self._seen = set(ids) if sampling.repetition_penalty != 1 else set()

    def pick(self, logits: npt.NDArray[Any], allowed: npt.NDArray[np.bool_] | None = None) -> int:
        """Return the next token id. The repetition penalty applies to it from now on.

        Args:
            logits: shape ``[vocabulary]``.
            allowed: which tokens there are to choose from, one at least, ``[vocabulary]``; None for all.
        """
        penalized = self._sampling.repetition_penalty != 1
        scores = self._penalized(logits) if penalized else logits
        indices = None if allowed is None else np.flatnonzero(allowed)
        if indices is not None:
            scores = scores[indices]
        place = int(scores.argmax()) if self._sampling.temperature == 0 else self._draw(scores)
        token = place if indices is None else int(indices[place])
        if penalized:
            self._seen.add(token)
        return token

    def likeliest(self, logits: npt.NDArray[Any]) -> int | None:
        """Return the token that :meth:`pick` would return, if that takes neither chance nor a penalty; else None."""
        sampling = self._sampling
        is_plain = sampling.temperature == 0 and sampling.repetition_penalty == 1
        return int(logits.argmax()) if is_plain else None

    def _penalized(self, logits: npt.NDArray[Any]) -> Floats:
        """Divide positive logits by the penalty and multiply negative ones, as in CTRL (Keskar et al., 2019)."""
        scores = logits.astype(np.float64)
        indices = np.fromiter(self._seen, np.int64, len(self._seen))
        indices = indices[indices < len(scores)]
        penalty, seen = self._sampling.repetition_penalty, scores[indices]
        scores[indices] = np.where(seen > 0, seen / penalty, seen * penalty)
        return scores

    def _draw(self, logits: npt.NDArray[Any]) -> int:
        """Draw a token by probability, after top-k and top-p."""
        scores = (logits.astype(np.float64) - float(logits.max())) / self._sampling.temperature
        indices = self._candidates(scores)
        probs = np.exp(scores[indices])
        probs /= probs.sum()
        if self._sampling.top_p < 1:
            nucleus = _nucleus(probs, self._sampling.top_p)
            indices, probs = indices[nucleus], probs[nucleus]
        reached = np.cumsum(probs)
        index = int(np.searchsorted(reached, self._random.random() * reached[-1], "right"))
        return int(indices[min(index, len(indices) - 1)])

    def _candidates(self, scores: Floats) -> Indices:
        """Return the ids of the top k scores in ascending order; all ids if k is 0. Lower ids win ties."""
        count = self._sampling.top_k
        if not 0 < count < len(scores):
            return np.arange(len(scores))
        least = np.partition(scores, -count)[-count]
        above, equal = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
        return np.sort(np.concatenate([above, equal[: count - len(above)]]))


def _nucleus(probs: Floats, top_p: float) -> Indices:
    """Return the places of the largest probabilities that reach ``top_p`` together, in falling order.

    Lower places win ties. Most often a few tokens have nearly all probability, so few are sorted at first.
    """
    for count in (*_NUCLEUS, len(probs)):
        largest = np.arange(len(probs))
        if count < len(probs):
            largest = np.flatnonzero(probs >= np.partition(probs, -count)[-count])
        order = largest[np.argsort(-probs[largest], kind="stable")]
        reached = np.cumsum(probs[order])
        if reached[-1] >= top_p:
            break
    return order[: int(np.searchsorted(reached, top_p)) + 1]

"""Tokens with their logarithmic probabilities, from logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from phi3_core.values import ScoredToken


def score(token: int, logits: npt.NDArray[Any], count: int) -> ScoredToken:
    """Return a token with its logarithmic probability, and those of the likeliest ones.

    They are the log-softmax of the logits as the model gives them: neither the temperature, nor a penalty, nor a JSON
    schema changes them.

    Args:
        token: the token that was chosen.
        logits: shape ``[vocabulary]``.
        count: how many of the likeliest tokens to give.
    """
    scores = logits.astype(np.float64)
    largest = float(scores.max())
    total = largest + float(np.log(np.exp(scores - largest).sum()))
    count = min(count, len(scores))
    top: npt.NDArray[np.integer[Any]] = np.arange(0)
    if count:
        least = np.partition(scores, -count)[-count]
        found = np.flatnonzero(scores >= least)  # in ascending order: lower ids win ties, as in sampling
        top = found[np.argsort(-scores[found], kind="stable")][:count]
    return ScoredToken(
        token, float(scores[token]) - total, tuple((int(each), float(scores[each]) - total) for each in top)
    )

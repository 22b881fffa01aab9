"""How much a model lost: two sets of logits over the same text, compared.

Perplexity is the exponential of the mean negative log-likelihood of each next token. The KL divergence of the
candidate from the reference, in nats, compares whole distributions and so needs far less text for a steady figure;
top-1 agreement is how often both hold the same token for the likeliest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import frozen

from phi3_core.errors import BackendError, UsageError

Logits = npt.NDArray[Any]
"""``[tokens, vocabulary]``, of any floating type; a memory map will do."""

_VALUES_AT_ONCE = 1 << 22


@frozen(kw_only=True)
class Quality:
    """The quality report."""

    tokens: int
    perplexity_reference: float
    perplexity: float
    kl_mean: float
    kl_p99: float
    """The 99th percentile over the positions."""
    top1_agreement: float
    """A share between 0 and 1."""

    @property
    def is_noise(self) -> bool:
        """Whether the candidate knows next to nothing of what the reference knows: something went wrong.

        Weights that were rounded badly still agree in a third of the positions; a wrong graph in almost none.
        """
        return self.top1_agreement < 0.1 or not math.isfinite(self.kl_mean)


def measure(ids: Sequence[int], reference: Logits, candidate: Logits) -> Quality:
    """Compare the logits after each of ``ids``. A few rows are looked at in a time, so memory stays bounded."""
    tokens = len(ids)
    if tokens < 2:
        raise UsageError("a quality report needs at least two tokens of text")
    if reference.shape[1:] != candidate.shape[1:]:
        raise UsageError(
            f"the reference has a vocabulary of {reference.shape[1]}, and the model one of {candidate.shape[1]}",
            hint="compare a model with its own original",
        )
    if len(reference) != tokens or len(candidate) != tokens:
        raise BackendError(
            f"{tokens} tokens have logits of {list(reference.shape)} in the reference"
            f" and {list(candidate.shape)} in the candidate"
        )
    divergences = np.empty(tokens)
    likelihoods = np.zeros((2, tokens - 1))
    agreed = 0
    step = max(1, _VALUES_AT_ONCE // reference.shape[1])
    for start in range(0, tokens, step):
        rows = slice(start, min(start + step, tokens))
        expected, given = _log_softmax(reference[rows]), _log_softmax(candidate[rows])
        with np.errstate(invalid="ignore"):
            divergences[rows] = np.einsum("tv,tv->t", np.exp(expected), expected - given)
        agreed += int((expected.argmax(axis=1) == given.argmax(axis=1)).sum())
        following = np.asarray(ids[start + 1 : rows.stop + 1])
        places = np.arange(len(following))
        likelihoods[:, start : start + len(following)] = expected[places, following], given[places, following]
    expected_mean, given_mean = likelihoods.mean(axis=1)
    divergences = np.maximum(divergences, 0)  # rounding can make nothing slightly less than nothing
    return Quality(
        tokens=tokens,
        perplexity_reference=_exp(-expected_mean),
        perplexity=_exp(-given_mean),
        kl_mean=float(divergences.mean()),
        kl_p99=float(np.quantile(divergences, 0.99)),
        top1_agreement=agreed / tokens,
    )


def _log_softmax(rows: Logits) -> npt.NDArray[np.float64]:
    values = rows.astype(np.float64)
    with np.errstate(invalid="ignore"):  # a broken engine's infinities: the report says what comes of them
        values -= values.max(axis=1, keepdims=True)
        values -= np.log(np.exp(values).sum(axis=1, keepdims=True))
    return values


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf

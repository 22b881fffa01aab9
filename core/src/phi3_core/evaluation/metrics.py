"""Quality metrics: two sets of logits over the same text, compared.

Perplexity is the exponential of the mean negative log-likelihood of each next token. The KL divergence of the
candidate from the reference, in nats, compares entire distributions and therefore needs far less text to converge.
Top-1 agreement is the share of positions at which both rank the same token first.
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
"""``[tokens, vocabulary]``, of any floating-point type; may be a memory map."""

_VALUES_AT_ONCE = 1 << 22
_MOST_LOST = 0.75
"""The share of what the reference knows that noise has lost at least. int4 per channel of `sample` loses 0.15 of it."""
_LEAST_KNOWN = 1.0
"""What a reference knows at least of the text, in nats per token, for the candidate's perplexity to mean something."""


@frozen(kw_only=True)
class Quality:
    """The quality report of an artifact."""

    tokens: int
    perplexity_reference: float
    perplexity: float
    kl_mean: float
    """Mean KL divergence from the reference, in nats."""
    kl_p99: float
    """The 99th percentile over the positions."""
    top1_agreement: float
    """A share between 0 and 1."""
    vocabulary: int
    """The perplexity of guessing: the number of tokens."""
    kl_guessing: float
    """The mean KL divergence of guessing, that is of equal probabilities, from the reference, in nats."""

    @property
    def is_noise(self) -> bool:
        """Whether the candidate is about as far from the reference as guessing is, which indicates an error.

        Three measures tell, each of them alone. Badly rounded weights still agree at a third of the positions, a wrong
        graph at almost none. Logits that are scaled, or probabilities in their place, agree at all of them, but their
        KL divergence is that of guessing, or their perplexity close to the number of tokens.
        """
        if self.top1_agreement < 0.1 or not math.isfinite(self.kl_mean):
            return True
        known = math.log(self.vocabulary) - _log(self.perplexity_reference)
        lost = _log(self.perplexity) - _log(self.perplexity_reference)
        return self.kl_mean > _MOST_LOST * self.kl_guessing or (known > _LEAST_KNOWN and lost > _MOST_LOST * known)

    @property
    def words(self) -> str:
        """The measures that tell noise, in a sentence."""
        return (
            f"it agrees with the original in {self.top1_agreement:.0%} of the positions, its perplexity is "
            f"{self.perplexity:,.4g} instead of {self.perplexity_reference:,.4g}, and its KL divergence "
            f"{self.kl_mean:.2g} where guessing has {self.kl_guessing:.2g}"
        )


def measure(ids: Sequence[int], reference: Logits, candidate: Logits) -> Quality:
    """Compare two sets of logits over the same text, in blocks of rows to bound memory.

    Args:
        ids: token ids of the text.
        reference: the reference's logits at each position, ``[tokens, vocabulary]``.
        candidate: the candidate's, likewise.

    Raises:
        BackendError: the number of logits differs from that of the tokens.
        UsageError: the vocabularies differ, or there are fewer than two tokens.
    """
    tokens = len(ids)
    if tokens < 2:
        raise UsageError("a quality report needs at least two tokens of text")
    check_vocabularies(reference.shape[1], candidate.shape[1])
    if len(reference) != tokens or len(candidate) != tokens:
        raise BackendError(
            f"{tokens} tokens have logits of {list(reference.shape)} in the reference"
            f" and {list(candidate.shape)} in the candidate"
        )
    divergences, guessing = np.empty(tokens), np.empty(tokens)
    likelihoods = np.zeros((2, tokens - 1))
    agreed = 0
    step = max(1, _VALUES_AT_ONCE // reference.shape[1])
    for start in range(0, tokens, step):
        rows = slice(start, min(start + step, tokens))
        expected, given = _log_softmax(reference[rows]), _log_softmax(candidate[rows])
        with np.errstate(invalid="ignore"):
            probs = np.exp(expected)
            divergences[rows] = np.einsum("tv,tv->t", probs, expected - given)
            guessing[rows] = np.einsum("tv,tv->t", probs, expected) + math.log(expected.shape[1])
        agreed += int((expected.argmax(axis=1) == given.argmax(axis=1)).sum())
        following = np.asarray(ids[start + 1 : rows.stop + 1])
        places = np.arange(len(following))
        likelihoods[:, start : start + len(following)] = expected[places, following], given[places, following]
    expected_mean, given_mean = likelihoods.mean(axis=1)
    divergences = np.maximum(divergences, 0)  # rounding errors can make a zero slightly negative
    return Quality(
        tokens=tokens,
        perplexity_reference=_exp(-expected_mean),
        perplexity=_exp(-given_mean),
        kl_mean=float(divergences.mean()),
        kl_p99=float(np.quantile(divergences, 0.99)),
        top1_agreement=agreed / tokens,
        vocabulary=reference.shape[1],
        kl_guessing=float(guessing.mean()),
    )


def check_vocabularies(reference: int, model: int | None) -> None:
    """Raise :class:`UsageError` if the vocabularies of the reference and the model are known to differ."""
    if model is not None and model != reference:
        raise UsageError(
            f"the reference has a vocabulary of {reference}, and the model one of {model}",
            hint="compare a model with its own original",
        )


def _log_softmax(rows: Logits) -> npt.NDArray[np.float64]:
    values = rows.astype(np.float64)
    with np.errstate(invalid="ignore"):  # a faulty engine may return infinities; the report shows them
        values -= values.max(axis=1, keepdims=True)
        values -= np.log(np.exp(values).sum(axis=1, keepdims=True))
    return values


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _log(value: float) -> float:
    return math.log(value) if 0 < value < math.inf else math.inf

"""The quality report, against figures worked out by hand and against itself in other pieces."""

from __future__ import annotations

import math

import numpy as np
import pytest
from phi3_core.errors import BackendError, UsageError
from phi3_core.evaluation.metrics import measure

RANDOM = np.random.default_rng(7)
IDS = [int(token) for token in RANDOM.integers(0, 50, 30)]
REFERENCE = RANDOM.standard_normal((30, 50)).astype(np.float32) * 3


def test_by_hand():
    reference = np.log(np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]))
    candidate = np.log(np.array([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]]))
    quality = measure([2, 1], reference, candidate)
    assert quality.perplexity_reference == pytest.approx(4)
    assert quality.perplexity == pytest.approx(2)
    assert quality.kl_mean == pytest.approx((0.5 * math.log(2) - 0.25 * math.log(2)) / 2)
    assert quality.top1_agreement == 0.5
    assert quality.tokens == 2


def test_the_same_is_the_same():
    quality = measure(IDS, REFERENCE, REFERENCE + 5)
    assert quality.kl_mean == pytest.approx(0, abs=1e-12)
    assert quality.kl_p99 == pytest.approx(0, abs=1e-12)
    assert quality.top1_agreement == 1
    assert quality.perplexity == pytest.approx(quality.perplexity_reference)
    assert not quality.is_noise


def test_in_pieces_it_is_the_same(monkeypatch):
    candidate = REFERENCE + RANDOM.standard_normal(REFERENCE.shape) / 2
    expected = measure(IDS, REFERENCE, candidate)
    monkeypatch.setattr("phi3_core.evaluation.metrics._VALUES_AT_ONCE", 50 * 7)
    pieces = measure(IDS, REFERENCE, candidate)
    assert pieces.kl_mean == pytest.approx(expected.kl_mean)
    assert pieces.perplexity == pytest.approx(expected.perplexity)
    assert pieces.top1_agreement == expected.top1_agreement


def test_noise_is_recognized():
    reference = RANDOM.standard_normal((64, 1000)) * 5
    ids = [int(token) for token in reference.argmax(1)]
    assert measure(ids, reference, RANDOM.standard_normal((64, 1000)) * 5).is_noise
    assert measure(ids, reference, np.full((64, 1000), np.nan)).is_noise


def test_what_agrees_everywhere_and_knows_nothing_is_noise():
    """The likeliest token is the same; all else is as in guessing, or worse."""
    reference = RANDOM.standard_normal((64, 1000)) * 5
    ids = [0, *(int(token) for token in reference.argmax(1)[:-1])]
    probs = np.exp(reference) / np.exp(reference).sum(1, keepdims=True)
    for candidate in (probs, reference * 0.02, reference * 40, np.where(probs == probs.max(1, keepdims=True), 1.0, 0)):
        quality = measure(ids, reference, candidate)
        assert quality.top1_agreement == 1
        assert quality.is_noise
        assert "it agrees with the original in 100% of the positions" in quality.words


def test_a_perplexity_near_that_of_guessing_is_noise_though_the_divergence_is_small():
    """Both know which half of the tokens is never next, but only the reference knows the one that the text has."""
    reference = np.zeros((64, 1000))
    reference[:, 500:] = -10
    candidate = reference.copy()
    reference[:, 7] = 3.5
    candidate[:, 8] = 0.1
    reference[::2, 8] = 3.6  # so that they agree at half of the positions
    quality = measure([7] * 64, reference, candidate)
    assert quality.top1_agreement == 0.5
    assert quality.kl_mean < 0.4 * quality.kl_guessing
    assert quality.is_noise


@pytest.mark.parametrize("error", [0.0, 0.1, 0.3, 0.6])
@pytest.mark.parametrize("scale", [0.05, 1.0, 5.0])
def test_rounding_errors_are_no_noise_of_whatever_scale_the_logits_are(error, scale):
    """Also not for random weights, which know nothing of the text."""
    random = np.random.default_rng(3)
    reference = random.standard_normal((64, 1000)) * scale
    candidate = reference + random.standard_normal((64, 1000)) * scale * error
    ids = [int(token) for token in random.integers(0, 1000, 64)]
    assert not measure(ids, reference, candidate).is_noise
    assert not measure([0, *map(int, reference.argmax(1)[:-1])], reference, candidate).is_noise


def test_guessing_has_the_figures_of_guessing():
    quality = measure(IDS, REFERENCE, np.zeros_like(REFERENCE))
    assert quality.perplexity == pytest.approx(quality.vocabulary) == 50
    assert quality.kl_mean == pytest.approx(quality.kl_guessing)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UsageError, match="at least two"):
        measure([1], REFERENCE[:1], REFERENCE[:1])
    with pytest.raises(UsageError, match="the reference has a vocabulary of 50, and the model one of 49"):
        measure(IDS, REFERENCE, REFERENCE[:, :49])
    with pytest.raises(BackendError, match=r"30 tokens have logits of \[30, 50\] in the reference and \[29, 50\]"):
        measure(IDS, REFERENCE, REFERENCE[:29])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_noise_and_no_crash(value):
    assert measure(IDS, REFERENCE, np.full_like(REFERENCE, value)).is_noise

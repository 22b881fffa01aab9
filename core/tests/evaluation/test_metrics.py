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

"""How tokens are picked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phi3_core.sampling import Sampler, _nucleus
from phi3_core.values import Sampling

LOGITS = np.log(np.array([0.05, 0.4, 0.3, 0.2, 0.05], np.float32))
FALLING = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
TOLD = [[4, 21, 23, 1, 6, 36], [30, 21, 8, 11, 30, 19], [11, 21, 8, 36, 14, 14]]


@pytest.fixture
def shares():
    """Draws many times, and tells how often each token was picked."""

    def shares(logits=LOGITS, count=4000, **sampling):
        sampler = Sampler(Sampling(seed=7, **sampling), [])
        return np.bincount([sampler.pick(logits) for _ in range(count)], minlength=len(logits)) / count

    return shares


def test_greedy_takes_the_likeliest_and_the_first_of_equals():
    for logits, token in ((LOGITS, 1), (FALLING, 0), (np.zeros(5, np.float32), 0)):
        assert Sampler(Sampling(), []).pick(logits) == token


def test_draws_follow_the_distribution(shares):
    assert shares(temperature=1.0) == pytest.approx([0.05, 0.4, 0.3, 0.2, 0.05], abs=0.03)
    assert shares(FALLING, temperature=1.0) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)


def test_a_low_temperature_sharpens_and_a_high_one_blurs(shares):
    squared = np.exp(2 * LOGITS.astype(np.float64))
    assert shares(temperature=0.5) == pytest.approx(list(squared / squared.sum()), abs=0.03)
    warm = np.array([0.5, 0.3, 0.15, 0.05]) ** 0.5
    assert shares(FALLING, temperature=2.0) == pytest.approx(warm / warm.sum(), abs=0.03)


def test_top_k_and_top_p_cut_the_tail_and_scale_the_rest(shares):
    assert shares(temperature=1.0, top_k=2) == pytest.approx([0, 4 / 7, 3 / 7, 0, 0], abs=0.03)
    assert shares(temperature=1.0, top_p=0.5) == pytest.approx([0, 4 / 7, 3 / 7, 0, 0], abs=0.03)
    assert list(shares(temperature=1.0, top_p=0.05)) == [0, 1, 0, 0, 0]
    assert shares(temperature=1.0, top_k=3, top_p=0.999)[0] == 0
    assert shares(FALLING, temperature=1.0, top_k=2) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)
    assert shares(FALLING, temperature=1.0, top_p=0.79) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)
    assert shares(FALLING, temperature=1.0, top_p=0.81)[3] == 0
    assert shares(FALLING, temperature=1.0, top_p=0.01) == pytest.approx([1, 0, 0, 0])
    assert shares(FALLING, temperature=1.0, top_k=3, top_p=0.6) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)


def test_a_seed_repeats_and_no_seed_does_not():
    def told(seed):
        sampler = Sampler(Sampling(temperature=1.0, seed=seed), [])
        return [sampler.pick(LOGITS) for _ in range(50)]

    assert told(3) == told(3)
    assert told(3) != told(4)
    assert told(None) != told(None)


def test_a_seed_tells_what_it_always_told():
    """Answers that people repeat by their seed stay as they are."""
    logits = np.sin(np.arange(40, dtype=np.float32) ** 2)
    told = []
    cuts: tuple[dict[str, Any], ...] = (
        {},
        {"top_p": 0.7},
        {"top_k": 20, "top_p": 0.5, "repetition_penalty": 1.5},
    )
    for cut in cuts:
        sampler = Sampler(Sampling(temperature=0.8, seed=11, **cut), [3, 30])
        told.append([sampler.pick(logits) for _ in range(6)])
    assert told == TOLD


@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0])
@pytest.mark.parametrize("top_p", [0.02, 0.5, 0.9, 0.9999])
def test_top_p_of_a_large_vocabulary_is_that_of_a_whole_sort(spread, top_p):
    random = np.random.default_rng(5)
    for size in (127, 129, 5000, 32064):
        probs = np.exp(np.round(random.standard_normal(size) * spread, 1))  # rounded, so that there are ties
        probs /= probs.sum()
        order = np.argsort(-probs, kind="stable")
        count = int(np.searchsorted(np.cumsum(probs[order]), top_p)) + 1
        assert np.array_equal(_nucleus(probs, top_p), order[:count])


def test_the_penalty_takes_from_what_was_said_whatever_its_sign():
    def sampler(ids):
        return Sampler(Sampling(repetition_penalty=2.0), ids)

    penalized = sampler([1])
    assert penalized.pick(np.array([0.6, 1.0, 0.4], np.float32)) == 0  # 1.0 counts half
    assert penalized.pick(np.array([0.6, 1.0, 0.4], np.float32)) == 1  # and now 0.6 does too
    assert sampler([1]).pick(np.array([-1.5, -1.0], np.float32)) == 0
    logits = np.array([2.0, 1.5, -1.0], np.float32)
    penalized = sampler([0, 2, 99])
    assert penalized.pick(logits) == 1
    assert penalized.pick(logits) == 0  # 1.5 counts as repeated now and is 0.75; 2.0 is 1.0
    assert logits.tolist() == [2.0, 1.5, -1.0]


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=30),
    st.floats(0.01, 5),
    st.integers(0, 40),
    st.floats(0.01, 1),
    st.integers(0, 2**32 - 1),
)
def test_what_is_picked_is_always_one_of_the_allowed(values, temperature, top_k, top_p, seed):
    logits = np.array(values, np.float32)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    picked = Sampler(sampling, []).pick(logits)
    assert picked == Sampler(sampling, []).pick(logits)
    better = sum(value > values[picked] for value in values)
    assert top_k == 0 or better < top_k
    weights = [math.exp((value - max(values)) / temperature) for value in logits.tolist()]
    above = sum(weight for weight in weights if weight > weights[picked]) / sum(weights)
    assert above <= top_p + 1e-6

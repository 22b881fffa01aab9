"""How the next token is picked."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phi3_core.values import Sampling
from phi3_dml.sampling import Sampler

LOGITS = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))


def shares(count=4000, logits=LOGITS, **sampling):
    sampler = Sampler(Sampling(seed=1, **sampling), [])
    picked = np.bincount([sampler.pick(logits) for _ in range(count)], minlength=len(logits))
    return picked / count


def test_zero_is_greedy():
    assert Sampler(Sampling(), []).pick(LOGITS) == 0
    assert Sampler(Sampling(), []).pick(np.zeros(5, np.float32)) == 0


def test_probabilities_are_those_of_the_logits():
    assert shares(temperature=1.0) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)
    warm = np.array([0.5, 0.3, 0.15, 0.05]) ** 0.5
    assert shares(temperature=2.0) == pytest.approx(warm / warm.sum(), abs=0.03)


def test_top_k_and_top_p_cut_and_scale():
    assert shares(temperature=1.0, top_k=2) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)
    assert shares(temperature=1.0, top_p=0.79) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)
    assert shares(temperature=1.0, top_p=0.81)[3] == 0
    assert shares(temperature=1.0, top_p=0.01) == pytest.approx([1, 0, 0, 0])
    assert shares(temperature=1.0, top_k=3, top_p=0.6) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)


def test_a_repetition_penalty_divides_what_is_positive_and_multiplies_what_is_not():
    logits = np.array([2.0, 1.5, -1.0], np.float32)
    sampler = Sampler(Sampling(repetition_penalty=2.0), [0, 2, 99])
    assert sampler.pick(logits) == 1
    assert sampler.pick(logits) == 0  # 1.5 counts as repeated now and is 0.75; 2.0 is 1.0
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

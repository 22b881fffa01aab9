"""How tokens are picked."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from phi3_core.values import Sampling
from phi3_npu.sampling import Picker

LOGITS = np.log(np.array([0.05, 0.4, 0.3, 0.2, 0.05], np.float32))


def drawn(count=4000, **sampling):
    picker = Picker(Sampling(seed=7, **sampling), ())
    found = collections.Counter(picker.pick(LOGITS) for _ in range(count))
    return [found[token] / count for token in range(len(LOGITS))]


def test_greedy_takes_the_likeliest_and_the_first_of_equals():
    assert Picker(Sampling(), ()).pick(LOGITS) == 1
    assert Picker(Sampling(), ()).pick(np.zeros(4, np.float32)) == 0


def test_draws_follow_the_distribution():
    assert drawn(temperature=1.0) == pytest.approx([0.05, 0.4, 0.3, 0.2, 0.05], abs=0.03)


def test_a_low_temperature_sharpens_it():
    squared = np.exp(2 * LOGITS.astype(np.float64))
    assert drawn(temperature=0.5) == pytest.approx(list(squared / squared.sum()), abs=0.03)


def test_top_k_and_top_p_cut_the_tail():
    assert drawn(temperature=1.0, top_k=2) == pytest.approx([0, 4 / 7, 3 / 7, 0, 0], abs=0.03)
    assert drawn(temperature=1.0, top_p=0.5) == pytest.approx([0, 4 / 7, 3 / 7, 0, 0], abs=0.03)
    assert drawn(temperature=1.0, top_p=0.05) == [0, 1, 0, 0, 0]
    assert drawn(temperature=1.0, top_k=3, top_p=0.999)[0] == 0


def test_a_seed_repeats_and_no_seed_does_not():
    def told(seed):
        picker = Picker(Sampling(temperature=1.0, seed=seed), ())
        return [picker.pick(LOGITS) for _ in range(50)]

    assert told(3) == told(3)
    assert told(3) != told(4)
    assert told(None) != told(None)


def test_the_penalty_takes_from_what_was_said_whatever_its_sign():
    penalized = Picker(Sampling(repetition_penalty=2.0), (1,))
    assert penalized.pick(np.array([0.6, 1.0, 0.4], np.float32)) == 0  # 1.0 counts half
    assert penalized.pick(np.array([0.6, 1.0, 0.4], np.float32)) == 1  # and now 0.6 does too
    assert Picker(Sampling(repetition_penalty=2.0), (1,)).pick(np.array([-1.5, -1.0], np.float32)) == 0

"""Tokens with their logarithmic probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from phi3_core.backend import Answer
from phi3_core.decoding.scored import score
from phi3_core.values import GenerationRequest, Sampling, ScoredToken


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("count", [0, 1, 20, 50])
def test_they_are_those_of_the_softmax(kind, count):
    row = np.random.default_rng(3).normal(0, 4, 40).astype(kind)
    probs = np.exp(row.astype(np.float64)) / np.exp(row.astype(np.float64)).sum()
    found = score(7, row, count)
    assert found == 7
    assert np.exp(found.logprob) == pytest.approx(probs[7])
    assert [token for token, _ in found.top] == list(np.argsort(-probs, kind="stable")[: min(count, 40)])
    assert np.exp([logprob for _, logprob in found.top]) == pytest.approx(np.sort(probs)[::-1][:count])


def test_large_logits_do_not_overflow():
    found = score(0, np.array([3e4, 0, -3e4], np.float32), 2)
    assert found.logprob == 0
    assert found.top == ((0, 0.0), (1, -3e4))


def test_sampling_settings_do_not_change_them():
    row = np.array([[1.0, 3.0, 2.0, 0.0]])
    sampling = Sampling(temperature=5.0, top_k=1, repetition_penalty=1.5, seed=1)
    (token,) = Answer(GenerationRequest(prompt_ids=(1,), max_new_tokens=2, logprobs=1, sampling=sampling)).append(row)
    assert isinstance(token, ScoredToken)
    ((likeliest, logprob),) = token.top
    assert likeliest == 1
    assert logprob == pytest.approx(3 - np.log(np.exp(row).sum()))


def test_who_does_not_ask_gets_plain_ids():
    (token,) = Answer(GenerationRequest(prompt_ids=(1,), max_new_tokens=2)).append(np.eye(4)[[2]])
    assert type(token) is int

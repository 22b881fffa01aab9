"""What prompt lookup proposes, and what a text costs that does not quote."""

from __future__ import annotations

import numpy as np
import pytest
from phi3_core.decoding.prompt_lookup import LEAST, PromptLookup


def simulated(prompt: list[int], answer: list[int], most: int = 8) -> tuple[int, list[tuple[int, int]]]:
    """Return the passes for an answer, and the tokens proposed in vain with the position, of each pass."""
    ids = list(prompt)
    lookup = PromptLookup(ids, most)
    passes, vain = 0, []
    left = answer
    while left:
        proposed = lookup.propose(len(left) - 1)
        right = 0
        while right < len(proposed) and proposed[right] == left[right]:
            right += 1
        if proposed:
            lookup.learn(len(proposed), right)
            vain.append((len(answer) - len(left), len(proposed) - right))
        passes += 1
        ids += left[: right + 1]
        left = left[right + 1 :]
    return passes, vain


def test_a_quotation_takes_an_eighth_of_the_passes():
    prompt = np.random.default_rng(0).integers(0, 1000, 300).tolist()
    passes, vain = simulated(prompt, prompt[50:200])
    assert passes < 150 / 8 + 8
    assert sum(count for _, count in vain) == 0


def test_what_follows_the_longest_match_is_proposed():
    ids = [9, 1, 2, 3, 4, 5, 8, 1, 2, 3, 6, 7, 9, 1, 2, 3]
    assert PromptLookup(ids, 8).propose(99) == (4, 5, 8, 1)
    assert PromptLookup(ids, 2).propose(99) == (4, 5)
    assert PromptLookup(ids, 8).propose(1) == (4,)
    assert PromptLookup(ids, 8).propose(0) == ()


@pytest.mark.parametrize("ids", [[], [1], [1, 1], [1, 2, 3], [1, 1, 1]])
def test_short_texts_have_nothing_to_propose(ids):
    assert PromptLookup(ids, 8).propose(8) == ()


def test_fewer_new_tokens_than_a_match_needs_are_not_enough():
    ids = [1, 2, 3, 4, 1, 2]
    assert len(ids) - 4 < LEAST
    assert PromptLookup(ids, 8).propose(8) == ()


def test_text_whose_matches_mislead_soon_has_no_proposals():
    """The prompt has all tokens of the answer, few at a time, and after each something else than the answer."""
    random = np.random.default_rng(1)
    answer = random.integers(0, 100, 300).tolist()
    prompt = [token for at in range(LEAST, 300) for token in (*answer[at - LEAST : at], 1000 + at)]
    passes, vain = simulated(prompt, answer)
    assert passes == 300
    assert 0 < sum(count for _, count in vain) <= LEAST
    assert all(position <= 32 for position, _ in vain)


def test_longer_matches_that_mislead_cost_less_than_three_proposals_of_eight():
    random = np.random.default_rng(2)
    answer = random.integers(0, 100, 300).tolist()
    prompt = [token for at in range(20, 300) for token in (*answer[at - 20 : at], 1000 + at)]
    passes, vain = simulated(prompt, answer)
    assert 0 < sum(count for _, count in vain) <= 24
    assert passes <= 300


def test_a_quotation_that_comes_late_is_still_found():
    random = np.random.default_rng(3)
    prompt = random.integers(0, 1000, 500).tolist()
    talk = random.integers(1000, 2000, 200).tolist()
    passes, _ = simulated(prompt, talk + prompt[100:400])
    assert passes < 200 + 300 / 8 + 8

"""An answer's tokens, pass by pass, for engines that run the passes themselves."""

from __future__ import annotations

import numpy as np
import pytest
from phi3_core.backend import Answer
from phi3_core.values import GenerationRequest

TEXT = (1, 2, 3, 4, 5, 6, 7, 1, 2, 3)


def logits(*tokens: int) -> np.ndarray:
    return np.eye(10)[list(tokens)]


def request(**more) -> GenerationRequest:
    return GenerationRequest(prompt_ids=TEXT, **{"max_new_tokens": 9, **more})


def test_tokens_that_were_proposed_and_right_come_in_one_pass():
    answer = Answer(request(), proposals=8)
    assert answer.append(logits(4)) == [4]
    assert answer.following() == (4, 5, 6, 7, 1)
    assert answer.append(logits(5, 6, 9, 0, 0)) == [5, 6, 9]
    assert answer.rejected == 2
    assert answer.ids == [*TEXT, 4, 5, 6, 9]
    assert answer.following() == (9,)
    assert answer.append(logits(8)) == [8]
    assert answer.rejected == 0
    assert not answer.ended


@pytest.mark.parametrize("more", [{"lookup": "off"}, {}])
def test_without_lookup_a_pass_has_one_token(more):
    answer = Answer(request(**more), proposals=8 if more else 0)
    answer.append(logits(4))
    assert answer.following() == (4,)


def test_proposals_can_be_left_out_of_a_pass():
    answer = Answer(request(), proposals=8)
    answer.append(logits(4))
    assert answer.following(proposes=False) == (4,)
    assert answer.append(logits(5)) == [5]
    assert answer.rejected == 0
    assert answer.following() == (5, 6, 7, 1, 2, 3)


def test_it_ends_before_a_stop_id_and_at_the_limit():
    stopped = Answer(request(stop_ids=(6,)), proposals=8)
    stopped.append(logits(4))
    stopped.following()
    assert stopped.append(logits(5, 6, 7, 1, 2)) == [5]
    assert stopped.ended
    limited = Answer(request(max_new_tokens=3), proposals=8)
    limited.append(logits(4))
    assert limited.following() == (4, 5)
    assert limited.append(logits(5, 6)) == [5, 6]
    assert limited.ended

"""Answers from a forward pass: what is generated, what is computed for it, and what is kept."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phi3_core.decoding.chunks import chunks
from phi3_core.decoding.decoder import Decoder
from phi3_core.values import GenerationRequest, Sampling

VOCABULARY = 5


class Remembering:
    """A model whose next token depends on the last two, with a cache that must be right."""

    def __init__(self, seed: int = 0) -> None:
        self.table = np.random.default_rng(seed).standard_normal((VOCABULARY, VOCABULARY, VOCABULARY))
        self.cache: list[int] = []
        self.calls: list[int] = []
        self.fails = False

    def advance(self, ids: Sequence[int], rows: int) -> np.ndarray:
        if self.fails:
            self.fails = False
            self.cache += [0, 0]
            raise RuntimeError("no")
        self.calls.append(len(ids))
        self.cache += ids
        before = [0, *self.cache]
        return np.stack([self.table[before[-1 - back], before[-2 - back]] for back in reversed(range(rows))])

    def rewind(self, length: int) -> None:
        assert length <= len(self.cache)
        del self.cache[length:]


def request(ids: Sequence[int], new: int = 20, **more) -> GenerationRequest:
    return GenerationRequest(prompt_ids=tuple(ids), max_new_tokens=new, **more)


def expected(model: Remembering, ids: Sequence[int], new: int) -> list[int]:
    text = [0, *ids]
    for _ in range(new):
        text.append(int(model.table[text[-1], text[-2]].argmax()))
    return text[len(ids) + 1 :]


PROMPTS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=40)


@given(seed=st.integers(0, 50), prompts=st.lists(PROMPTS, min_size=1, max_size=4), size=st.integers(1, 9))
def test_answers_do_not_depend_on_chunks_or_on_those_before(seed, prompts, size):
    model = Remembering(seed)
    decoder = Decoder(model, plan=lambda ids: chunks(ids, size))
    for prompt in prompts:
        assert list(decoder.generate(request(prompt))) == expected(model, prompt, 20)


@settings(max_examples=200)
@given(
    seed=st.integers(0, 50),
    prompt=PROMPTS,
    new=st.integers(1, 60),
    temperature=st.sampled_from([0, 0.5, 1.5]),
    penalty=st.sampled_from([1.0, 1.3]),
    stops=st.sets(st.integers(0, VOCABULARY - 1), max_size=1),
    proposals=st.integers(1, 9),
)
def test_prompt_lookup_changes_nothing_but_the_number_of_passes(
    seed, prompt, new, temperature, penalty, stops, proposals
):
    sampling = Sampling(temperature=temperature, repetition_penalty=penalty, seed=seed)
    asked = request(prompt, new, sampling=sampling, stop_ids=tuple(stops))
    plain, looking = Remembering(seed), Remembering(seed)
    found = list(Decoder(looking, proposals=proposals).generate(asked))
    assert found == list(Decoder(plain, proposals=0).generate(asked))
    assert len(looking.calls) <= len(plain.calls)
    assert max(looking.calls[1:], default=1) <= proposals + 1


def test_text_that_repeats_takes_a_fraction_of_the_passes():
    model = Remembering()
    assert len(list(Decoder(model, proposals=8).generate(request([1, 2], 200)))) == 200
    assert len(model.calls) < 40  # whatever it says, soon it repeats itself
    model = Remembering()
    list(Decoder(model, proposals=8).generate(evolved := request([1, 2], 200, lookup="off")))
    assert len(model.calls) == evolved.max_new_tokens


def test_whole_chunks_are_kept_and_an_answer_is_read_again():
    model = Remembering()
    decoder = Decoder(model, plan=lambda ids: chunks(ids, 4))
    first = list(decoder.generate(request([1, 2, 3, 4, 1, 2, 3, 4, 1], 4)))
    model.calls.clear()
    list(decoder.generate(request([1, 2, 3, 4, 1, 2, 3, 4, 1, *first], 1)))
    assert model.calls == [4, 1]  # two chunks are kept; the third was not whole
    model.calls.clear()
    list(decoder.generate(request([1, 2, 3, 4], 1)))
    assert model.calls == [4]  # for its logits


def test_without_keeping_every_prompt_is_read_whole():
    model = Remembering()
    decoder = Decoder(model, plan=lambda ids: chunks(ids, 4), keeps=False)
    for _ in range(2):
        model.calls.clear()
        list(decoder.generate(request([1, 2, 3, 4, 1], 1)))
        assert model.calls == [4, 1]


@pytest.mark.parametrize("after", range(4))
def test_after_a_failure_the_cache_is_not_used(after):
    model = Remembering()
    decoder = Decoder(model, plan=lambda ids: chunks(ids, 2))
    prompt = [1, 2, 3, 4, 1]
    answer = decoder.generate(request(prompt))
    made = list(itertools.islice(answer, after))
    model.fails = True
    with pytest.raises(RuntimeError, match="no"):
        made += list(answer)
    assert made == expected(model, prompt, after)
    assert list(decoder.generate(request(prompt))) == expected(model, prompt, 20)


class TwoForms(Remembering):
    """Longrope: what was read of a sequence up to six tokens long is of no use to a longer one."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.long: list[bool] = []

    def advance(self, ids: Sequence[int], rows: int) -> np.ndarray:
        long = len(self.cache) + len(ids) > 6
        assert self.long[: len(self.cache)] == [long] * len(self.cache)
        self.long = [*self.long[: len(self.cache)], *[long] * len(ids)]
        return super().advance(ids, rows)


def divided(ids: Sequence[int]) -> list[tuple[int, ...]]:
    """Chunks of two, where the first one of a long sequence is long itself."""
    return chunks(ids, 2) if len(ids) <= 6 else [tuple(ids[:8]), *chunks(ids[8:], 2)]


@given(
    seed=st.integers(0, 9),
    prompts=st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=12), min_size=1, max_size=5),
    proposals=st.integers(0, 4),
)
def test_answers_that_cross_the_limit_of_longrope_are_read_again(seed, prompts, proposals):
    model = TwoForms(seed)
    decoder = Decoder(model, plan=divided, proposals=proposals, short=6)
    for prompt in prompts:
        found = list(decoder.generate(request(prompt, 9)))
        assert found == expected(model, prompt, 9)
        for _ in decoder.read_ahead([*prompt, *found]):
            pass


def test_what_was_read_ahead_is_not_read_again():
    model = Remembering()
    decoder = Decoder(model, plan=lambda ids: chunks(ids, 2))
    prompt = [1, 2, 3, 4, 1]
    whole = [*prompt, *decoder.generate(request(prompt, 6))]
    model.calls.clear()
    steps = decoder.read_ahead(whole)
    next(steps)
    steps.close()
    assert model.calls == [2]
    assert list(decoder.read_ahead(whole)) == [None] * 2
    model.calls.clear()
    assert list(decoder.generate(request([*whole, 1], 5))) == expected(model, [*whole, 1], 5)
    assert model.calls == [2, 1, 1, 1, 1]


def test_closing_an_answer_leaves_the_cache_usable():
    model = Remembering()
    decoder = Decoder(model, plan=lambda ids: chunks(ids, 2), proposals=4)
    for count in range(12):
        answer = decoder.generate(request([1, 2, 3]))
        assert list(itertools.islice(answer, count)) == expected(model, [1, 2, 3], count)
        answer.close()


def test_logits_are_those_after_every_token():
    model = Remembering()
    decoder = Decoder(model, plan=lambda ids: chunks(ids, 3))
    list(decoder.generate(request([1, 2, 3, 4])))
    rows = decoder.logits([4, 3, 2, 1])
    assert np.array_equal(rows, [model.table[4, 0], model.table[3, 4], model.table[2, 3], model.table[1, 2]])
    assert list(decoder.generate(request([4, 3, 2, 1]))) == expected(model, [4, 3, 2, 1], 20)

"""The words of ``capabilities`` that core knows, each for engines that have it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from phi3_core.text.tokenizer import Tokenizer
from phi3_core.values import MOST_LOGPROBS, Offer, ScoredToken

from . import models
from .answers import COUNT, PROMPT
from .base import ContractBase, usable_engine
from .engines import LoadedEngine
from .judging import check_greedy
from .subject import Subject

_CHOICES = ("yes", "no")
_ROUNDING = 1e-3


class Capabilities(ContractBase):
    """What an engine says that it can do, it does. ``rewind`` and words of its own have no meaning for core."""

    @pytest.fixture(params=["answer", "conversation"])
    def capable(
        self, request: pytest.FixtureRequest, subject: Subject, offer: Offer, best: str, greedy: list[int]
    ) -> LoadedEngine:
        """An engine for each purpose that has answers: another one may have other capabilities."""
        return usable_engine(subject, models.PLAIN, offer, best, request.param)

    def test_a_json_schema_is_followed(self, subject: Subject, capable: LoadedEngine) -> None:
        """The whole answer is a value that the schema allows, and the next request has no schema."""
        self.has(capable, "json_schema")
        expected = capable.ask(PROMPT, COUNT)
        tokenizer = Tokenizer.from_folder(subject.source(models.PLAIN).path)
        schema = json.dumps({"enum": _CHOICES})  # without a choice of whitespace, which has no end
        text = tokenizer.decode(capable.ask(PROMPT, COUNT, tokenizer.stop_ids, json_schema=schema))
        assert text in map(json.dumps, _CHOICES), f"with the schema {schema}, the answer was {text!r}"
        assert capable.ask(PROMPT, COUNT) == expected, "after a request with a schema, another answer has changed"

    def test_tokens_come_with_their_logarithmic_probabilities(self, capable: LoadedEngine) -> None:
        """Those of the same answer, from the model's own distribution."""
        self.has(capable, "logprobs")
        expected = capable.ask(PROMPT, COUNT)
        found = capable.ask(PROMPT, COUNT, logprobs=5)
        assert found == expected, "with logprobs, the answer is another one"
        for token in found:
            assert isinstance(token, ScoredToken), f"{token!r} has no logarithmic probabilities"
            ids, values = zip(*token.top, strict=True)
            assert len(set(ids)) == len(ids) == 5, f"the likeliest tokens of {token!r} are {ids}"
            assert list(values) == sorted(values, reverse=True), f"the likeliest tokens of {token!r} are not in order"
            assert sum(map(math.exp, values)) <= 1 + _ROUNDING, "the probabilities of different tokens exceed 1"
            assert (ids[0], values[0]) == (token, token.logprob), "the greedy token is not the likeliest one"

    @pytest.mark.parametrize("count", [0, MOST_LOGPROBS])
    def test_any_number_of_likely_tokens_comes_with_each(self, capable: LoadedEngine, count: int) -> None:
        """From none, which leaves the token's own probability, to the most that can be asked for."""
        self.has(capable, "logprobs")
        expected = capable.ask(PROMPT, COUNT)
        found = capable.ask(PROMPT, COUNT, logprobs=count)
        assert found == expected, f"with logprobs={count}, the answer is another one"
        numbers = {len(token.top) if isinstance(token, ScoredToken) else None for token in found}
        assert numbers == {count}, f"with logprobs={count}, the tokens have {numbers} likely ones"

    def test_logprobs_change_no_sample(self, capable: LoadedEngine, seeded: None) -> None:
        """An answer with a temperature and a seed is the same with them."""
        self.has(capable, "logprobs")
        settings: dict[str, Any] = {"temperature": 1.5, "seed": 4}
        found = capable.ask(PROMPT, COUNT, logprobs=1, **settings)
        assert found == capable.ask(PROMPT, COUNT, **settings), "with logprobs, a seed has another answer"

    def test_prompt_lookup_changes_no_answer(self, subject: Subject, capable: LoadedEngine, best: str) -> None:
        """Of a prompt that quotes itself, which has something to propose."""
        self.has(capable, "lookup")
        prompt = PROMPT[:12] * 3
        for lookup in ("on", "off"):
            found = capable.ask(prompt, COUNT, lookup=lookup)
            assert len(found) == COUNT, f"with lookup={lookup!r}, {COUNT} ids became {len(found)}"
            check_greedy(subject, models.PLAIN, best, prompt, found)

    def test_the_word_logits_comes_with_the_hook(self, subject: Subject, engine: LoadedEngine) -> None:
        """Users see both."""
        self.has(engine, "logits")
        assert "logits" in subject.hooks, (
            f"an engine of {self.backend} has the word logits, and its plugin no such hook"
        )

    def has(self, engine: LoadedEngine, word: str) -> None:
        """Skip a test of a word that the engine does not have."""
        if word not in engine.capabilities:
            pytest.skip(f"engines of {self.backend} do not have the capability {word}")

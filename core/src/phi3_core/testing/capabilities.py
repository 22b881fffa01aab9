"""The words of ``capabilities`` that core knows, each for engines that have it."""

from __future__ import annotations

import json

import pytest

from phi3_core.text.tokenizer import Tokenizer

from . import models
from .answers import COUNT, PROMPT
from .base import ContractBase
from .engines import LoadedEngine
from .judging import check_greedy
from .subject import Subject

_CHOICES = ("yes", "no")


class Capabilities(ContractBase):
    """What an engine says that it can do, it does. ``rewind`` and words of its own have no meaning for core."""

    def test_a_json_schema_is_followed(self, subject: Subject, engine: LoadedEngine, greedy: list[int]) -> None:
        """The whole answer is a value that the schema allows, and the next request has no schema."""
        self.has(engine, "json_schema")
        tokenizer = Tokenizer.from_folder(subject.source(models.PLAIN).path)
        schema = json.dumps({"enum": _CHOICES})  # without a choice of whitespace, which has no end
        text = tokenizer.decode(engine.ask(PROMPT, COUNT, tokenizer.stop_ids, json_schema=schema))
        assert text in map(json.dumps, _CHOICES), f"with the schema {schema}, the answer was {text!r}"
        assert engine.ask(PROMPT, COUNT) == greedy, "after a request with a schema, another answer has changed"

    def test_prompt_lookup_changes_no_answer(
        self, subject: Subject, engine: LoadedEngine, best: str, greedy: list[int]
    ) -> None:
        """Of a prompt that quotes itself, which has something to propose."""
        self.has(engine, "lookup")
        prompt = PROMPT[:12] * 3
        for lookup in ("on", "off"):
            found = engine.ask(prompt, COUNT, lookup=lookup)
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

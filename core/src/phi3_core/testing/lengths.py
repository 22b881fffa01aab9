"""Prompts of every length: one id, around the sizes of chunks and blocks, and the whole context."""

from __future__ import annotations

import pytest

from phi3_core.values import Artifact, Offer

from . import models
from .base import ContractBase, usable_artifact
from .engines import LoadedEngine
from .judging import check_greedy
from .subject import Subject

SIZES = (1, 2, 31, 32, 33, 63, 64, 65)
LONG_SIZES = (127, 128, 129, 255, 256, 257, 511, 512, 513, 1025)


class Lengths(ContractBase):
    """Greedy answers to prompts of any length, against core's reference."""

    @pytest.mark.parametrize("size", SIZES)
    def test_a_prompt_of_any_length_is_read(
        self, subject: Subject, engine: LoadedEngine, best: str, greedy: list[int], size: int
    ) -> None:
        """The engine goes on as the original would."""
        prompt = models.random_ids(size, seed=100 + size)
        check_greedy(subject, models.PLAIN, best, prompt, engine.ask(prompt, 4))

    @pytest.mark.parametrize("size", LONG_SIZES)
    def test_a_long_prompt_of_any_length_is_read(
        self, subject: Subject, long_engine: LoadedEngine, best: str, greedy: list[int], size: int
    ) -> None:
        """Around the sizes in which prompts are read at a time."""
        if size + 2 > long_engine.context_length:
            pytest.skip(f"the context is limited to {long_engine.context_length} tokens")
        prompt = models.random_ids(size, seed=100 + size)
        check_greedy(subject, "long", best, prompt, long_engine.ask(prompt, 2))

    @pytest.mark.parametrize("new", [1, 2, 40])
    def test_the_whole_context_can_be_used(
        self, subject: Subject, engine: LoadedEngine, best: str, greedy: list[int], new: int
    ) -> None:
        """Prompt and answer together fill it to the last token."""
        new = min(new, engine.context_length - 1)
        prompt = models.random_ids(engine.context_length - new, seed=70 + new)
        found = engine.ask(prompt, new)
        assert len(found) == new
        check_greedy(subject, models.PLAIN, best, prompt, found)

    @pytest.fixture
    def shaped(self, subject: Subject, offer: Offer, best: str, shape: str, greedy: list[int]) -> Artifact:
        """A quantized model of one shape of the family."""
        return usable_artifact(subject, shape, offer, best)

    def test_an_answer_goes_on_as_the_original_would(
        self, subject: Subject, offer: Offer, best: str, shape: str, shaped: Artifact
    ) -> None:
        """Past a sliding window, and across the original context of longrope, for each shape of the family."""
        engine = subject.engine(shape, offer, best)
        ids = models.random_ids(60, seed=9)
        # Prompts that grow, fork and start over.
        for prompt in (ids[:5], ids[:20], ids[:30], ids[:12] + ids[40:50], ids[:28], ids[:8], ids[40:44]):
            count = min(16, engine.context_length - len(prompt))
            if count > 0:
                check_greedy(subject, shape, best, prompt, engine.ask(prompt, count))

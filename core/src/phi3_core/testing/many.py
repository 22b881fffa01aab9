"""``max_concurrency``: as many answers at once as the engine says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from . import models
from .base import ContractBase
from .engines import LoadedEngine
from .judging import check_greedy
from .subject import Subject

_LONG = 60
"""Tokens of an answer that goes on while others begin."""


class Many(ContractBase):
    """Several answers at once."""

    @pytest.fixture
    def most(self, engine: LoadedEngine, greedy: list[int]) -> int:
        """How many answers the engine generates at once."""
        if engine.max_concurrency == 1:
            pytest.skip(f"{self.backend} generates one answer at a time")
        return min(engine.max_concurrency, 8)

    def test_answers_at_once_are_answers_alone(
        self, subject: Subject, engine: LoadedEngine, best: str, most: int
    ) -> None:
        """Each goes on as the original would, and has all of its ids."""
        prompts = [models.random_ids(4 + 3 * number, seed=20 + number) for number in range(most)]
        # All are begun before one can have ended, also on a machine that does other things.
        streams = [engine.start(prompt, _LONG).ids() for prompt in prompts]
        with ThreadPoolExecutor(most) as pool:
            found = list(pool.map(lambda stream: [*stream], streams))
        for prompt, ids in zip(prompts, found, strict=True):
            assert len(ids) == _LONG
            check_greedy(subject, models.PLAIN, best, prompt, ids)

    def test_an_answer_that_is_closed_leaves_the_others_alone(
        self, subject: Subject, engine: LoadedEngine, best: str, most: int
    ) -> None:
        """They go on, and the engine takes another one in its place."""
        prompts = [models.random_ids(6, seed=40 + number) for number in range(most)]
        streams = [engine.start(prompt, _LONG).ids() for prompt in prompts]
        begun = [[next(stream), next(stream)] for stream in streams]
        streams[0].close()  # type: ignore[attr-defined]
        assert len(engine.ask(prompts[0], 5)) == 5
        for prompt, first, stream in zip(prompts[1:], begun[1:], streams[1:], strict=True):
            ids = [*first, *stream]
            assert len(ids) == _LONG
            check_greedy(subject, models.PLAIN, best, prompt, ids)

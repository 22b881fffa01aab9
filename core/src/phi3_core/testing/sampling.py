"""Sampling that follows its settings: temperature, top-k, top-p, the penalty and the seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from phi3_core.errors import UsageError

from . import models
from .answers import COUNT, PROMPT
from .base import ContractBase, needed
from .engines import LoadedEngine
from .judging import BOUNDS
from .subject import Subject

DRAWS = 120
"""First ids that are drawn to judge a distribution, each with a seed of its own."""
_FEWER_DRAWS = 60
"""Enough to draw an id that is not to be drawn, where nearly all are of that kind."""
_DEVIATIONS = 5.0
"""Standard deviations that a mean may be off: chance does it once in 1.7 million times."""

ENDS: Mapping[str, Mapping[str, Any]] = {
    "the largest seed": {"temperature": 1.0, "seed": 2**32 - 1},
    "a temperature of 0.001": {"temperature": 1e-3},
    "a temperature of 100": {"temperature": 100.0},
    "a top-k beyond the vocabulary": {"temperature": 1.0, "top_k": models.VOCABULARY + 1},
    "a top-p of 0.000001": {"temperature": 1.0, "top_p": 1e-6},
    "a penalty of 0.01": {"repetition_penalty": 0.01},
    "a penalty of 100": {"repetition_penalty": 100.0},
}
"""Settings at the ends of their ranges. A penalty has none but 0: these are far beyond what anybody asks for."""

Row = npt.NDArray[np.float64]


class SamplingSettings(ContractBase):
    """Answers with a temperature over 0."""

    @pytest.fixture
    def samples(self, subject: Subject, engine: LoadedEngine, greedy: list[int]) -> None:
        """Tests that need answers to vary ask for this."""
        with needed("sampling"):
            subject.once("varied", lambda: _check_variety(engine))

    @pytest.fixture
    def row(self, subject: Subject) -> Row:
        """The logits of the original after the prompt."""
        row: Row = subject.reference(models.PLAIN, PROMPT)[-1].astype(np.float64)
        return row

    def test_with_a_temperature_answers_vary(self, subject: Subject, engine: LoadedEngine, greedy: list[int]) -> None:
        """Without a seed, and from seed to seed."""
        subject.once("varied", lambda: _check_variety(engine))

    def test_a_seed_has_one_answer(self, subject: Subject, engine: LoadedEngine, samples: None) -> None:
        """Whatever was asked in between."""
        subject.once("seeded", lambda: _check_seed(engine))

    @pytest.fixture
    def seeded(self, subject: Subject, engine: LoadedEngine, samples: None) -> None:
        """Tests that compare answers with a seed ask for this."""
        with needed("sampling"):
            subject.once("seeded", lambda: _check_seed(engine))

    @pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
    def test_the_temperature_has_its_effect(
        self, engine: LoadedEngine, best: str, samples: None, row: Row, temperature: float
    ) -> None:
        """Tokens are drawn with the probabilities that it gives them."""
        drawn = row[_draw(engine, DRAWS, temperature=temperature)]
        probs = _softmax(row / temperature)
        mean = float(probs @ row)
        deviation = math.sqrt(float(probs @ np.square(row - mean)) / DRAWS)
        slack = _DEVIATIONS * deviation + BOUNDS[best].regret * float(np.ptp(row))
        words = f"at a temperature of {temperature}, the mean logit of {DRAWS} tokens is {drawn.mean():.2f}"
        assert abs(drawn.mean() - mean) <= slack, f"{words}; {mean:.2f} is expected, within {slack:.2f}"

    @pytest.mark.parametrize("count", [1, 4])
    def test_top_k_keeps_the_likeliest(
        self, engine: LoadedEngine, best: str, samples: None, row: Row, count: int
    ) -> None:
        """Even at a high temperature."""
        least = np.sort(row)[-count] - BOUNDS[best].regret * np.ptp(row)
        drawn = set(_draw(engine, _FEWER_DRAWS, temperature=3.0, top_k=count))
        outside = sorted(token for token in drawn if row[token] < least)
        assert not outside, f"with a top-k of {count}, {len(outside)} tokens were drawn that are not among them"

    def test_top_p_keeps_the_likeliest(self, engine: LoadedEngine, best: str, samples: None, row: Row) -> None:
        """Those that together reach the probability, after the temperature."""
        share = 0.3
        probs = np.sort(_softmax(row / 1.5))[::-1]
        count = int(np.searchsorted(np.cumsum(probs), share)) + 1
        least = np.sort(row)[-count] - BOUNDS[best].regret * np.ptp(row)
        drawn = set(_draw(engine, _FEWER_DRAWS, temperature=1.5, top_p=share))
        outside = sorted(token for token in drawn if row[token] < least)
        assert not outside, f"with a top-p of {share}, {len(outside)} tokens were drawn that are not among them"

    def test_the_penalty_discourages_what_was_said(self, engine: LoadedEngine, greedy: list[int]) -> None:
        """In the prompt and in the answer."""
        found = engine.ask(PROMPT, 40, repetition_penalty=20.0)
        prompt = sorted(set(found) & set(PROMPT))
        assert not prompt, f"with a penalty of 20, the answer repeats {len(prompt)} tokens of the prompt"
        assert len(set(found)) == len(found), "with a penalty of 20, the answer repeats its own tokens"

    @pytest.mark.parametrize("settings", ENDS.values(), ids=ENDS)
    def test_settings_may_be_at_the_ends_of_their_ranges(
        self, engine: LoadedEngine, samples: None, settings: Mapping[str, Any]
    ) -> None:
        """The answer has its ids. An engine that does not follow such a setting refuses it."""
        try:
            found = engine.ask(PROMPT, COUNT, **settings)
        except UsageError as error:
            pytest.skip(f"{self.backend} refuses it: {error}")
        assert len(found) == COUNT, f"with {settings}, {COUNT} ids became {len(found)}"

    def test_settings_of_one_request_do_not_last(self, engine: LoadedEngine, greedy: list[int], samples: None) -> None:
        """The next request has its own."""
        engine.ask(PROMPT, 8, temperature=2.0, top_k=9, top_p=0.5, repetition_penalty=3.0, seed=8)
        assert engine.ask(PROMPT, COUNT) == greedy


def _check_variety(engine: LoadedEngine) -> None:
    for words, seeds in (("without a seed", (None,) * 4), ("with four seeds", (1, 2, 3, 4))):
        found = {tuple(engine.ask(PROMPT, COUNT, temperature=1.5, seed=seed)) for seed in seeds}
        assert len(found) > 1, f"at a temperature of 1.5, four answers {words} were the same"


def _check_seed(engine: LoadedEngine) -> None:
    settings: dict[str, Any] = {"seed": 3, "temperature": 1.0, "top_k": 50, "top_p": 0.95}
    first = engine.ask(PROMPT, COUNT, **settings)
    assert engine.ask(PROMPT, COUNT, **settings) == first, "the same request with a seed had another answer"
    engine.ask(PROMPT[:5], 3, temperature=0.7)
    assert engine.ask(PROMPT, COUNT, **settings) == first, "another request changed what a seed gives"


def _draw(engine: LoadedEngine, draws: int, **settings: Any) -> list[int]:
    return [engine.ask(PROMPT, 1, seed=seed, **settings)[0] for seed in range(draws)]


def _softmax(row: Row) -> Row:
    probs: Row = np.exp(row - row.max())
    probs /= probs.sum()
    return probs

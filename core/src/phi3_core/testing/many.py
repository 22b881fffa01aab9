"""``max_concurrency``: as many answers at once as the engine says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from attrs import frozen

from . import models
from .engines import LoadedEngine
from .judging import check_greedy
from .sampling import SamplingSettings
from .subject import Subject

_LONG = 60
"""Tokens of an answer that goes on while others begin."""

_TRIES = 4
"""Beside others, numbers may be rounded otherwise, and a token in hundreds is another. One try without is enough."""


@frozen
class _Request:
    """One of several requests."""

    prompt: list[int]
    count: int
    alone: list[int]
    """The answer when nothing else is generated."""
    stop_ids: Sequence[int] = ()
    settings: Mapping[str, Any] = {}
    """Empty if the answer is greedy."""

    def check(self, subject: Subject, precision: str, found: list[int]) -> None:
        """Check what does not depend on rounding: where the answer ends, and the ids of a greedy one."""
        assert not set(found) & set(self.stop_ids), "beside others, an answer has one of its stop ids in it"
        ended = self.stop_ids[:1] if len(found) < self.count else ()
        assert len(found) == self.count or ended, f"beside others, {self.count} ids became {len(found)}"
        if not self.settings and found != self.alone:
            check_greedy(subject, models.PLAIN, precision, self.prompt, [*found, *ended])


class Many(SamplingSettings):
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

    def test_each_of_several_answers_at_once_has_its_own_settings(
        self, subject: Subject, engine: LoadedEngine, best: str, most: int, seeded: None
    ) -> None:
        """Temperature, seed, stop ids and length."""
        agree = False
        for number in range(_TRIES):
            requests = _requests(engine, number)
            # Each is beside the one before it and the one after it, also in an engine of two at once.
            groups = [requests[place : place + most] for place in range(max(1, len(requests) - most + 1))]
            found = [(each, ids) for group in groups for each, ids in zip(group, _pull(engine, group), strict=True)]
            for each, ids in found:
                each.check(subject, best, ids)
            agree = all(each.alone == ids for each, ids in found if each.settings)
            if agree:
                break
        assert agree, f"in {_TRIES} tries, answers at once were not those that their seeds give alone"

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


def _requests(engine: LoadedEngine, number: int) -> list[_Request]:
    """Return requests whose neighbours differ in everything: two greedy ones between three that are sampled."""
    first = 30 * number
    prompt, *prompts = (models.random_ids(5 + 2 * place, seed=60 + first + place) for place in range(4))
    greedy = engine.ask(prompt, _LONG)
    stop = max(greedy, key=greedy.index)  # the id that comes last for the first time
    settings: list[dict[str, Any]] = [
        {"temperature": 1.0, "top_k": 50, "top_p": 0.95, "seed": first + 1},
        {"temperature": 1.5, "top_k": 20, "seed": first + 2},
        {"temperature": 1.5, "top_k": 20, "seed": first + 3},
    ]
    sampled = [
        _Request(ids, count, engine.ask(ids, count, **given), settings=given)
        for ids, count, given in zip(prompts, (16, 16, 24), settings, strict=True)
    ]
    stopped = _Request(prompt, _LONG, greedy[: greedy.index(stop)], [stop])
    return [sampled[0], _Request(prompt, _LONG, greedy), stopped, *sampled[1:]]


def _pull(engine: LoadedEngine, requests: Sequence[_Request]) -> list[list[int]]:
    """Return the answers, all of which are begun before one is read."""
    streams = [engine.start(each.prompt, each.count, each.stop_ids, **each.settings).ids() for each in requests]
    with ThreadPoolExecutor(len(streams)) as pool:
        return list(pool.map(lambda stream: [*stream], streams))

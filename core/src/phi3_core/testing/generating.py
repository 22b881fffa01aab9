"""``generate``: the ids that were asked for, the same every time, and no work for nobody."""

from __future__ import annotations

import time

import pytest

from phi3_core.values import Offer

from . import models
from .answers import COUNT, PROMPT, answer, repeated
from .base import ContractBase, needed
from .engines import LoadedEngine
from .subject import Subject

CLOSE_S = 2.0
"""The time that an engine has to stop: core kills one that takes longer."""
_TRIES = 5


class Generating(ContractBase):
    """Greedy answers."""

    def test_generate_yields_as_many_ids_as_asked_for(
        self, subject: Subject, offer: Offer, best: str, engine: LoadedEngine
    ) -> None:
        """Each an integer of the vocabulary."""
        answer(subject, offer, best)

    def test_greedy_is_repeatable(self, subject: Subject, offer: Offer, best: str, generates: None) -> None:
        """A temperature of 0 has one answer."""
        repeated(subject, offer, best)

    def test_an_answer_ends_before_a_stop_id(self, engine: LoadedEngine, greedy: list[int]) -> None:
        """Whichever of the stop ids comes first, be it the first id of all."""
        unused = next(token for token in range(models.VOCABULARY) if token not in greedy)
        for place in (0, 1, COUNT // 2, COUNT - 1):
            stop = greedy[place]
            expected = greedy[: greedy.index(stop)]
            for stop_ids in ([stop], [unused, stop], [stop, unused]):
                found = engine.ask(PROMPT, COUNT, stop_ids)
                assert found == expected, f"with the stop ids {stop_ids}, {greedy} became {found}"

    def test_only_the_stop_ids_of_the_request_end_an_answer(self, engine: LoadedEngine, greedy: list[int]) -> None:
        """Whatever the model's own files say."""
        count = engine.context_length - COUNT - 8  # the end of the context has a test of its own
        assert len(engine.ask(PROMPT, count)) == count

    def test_what_is_kept_of_earlier_requests_changes_nothing(
        self, subject: Subject, offer: Offer, best: str, engine: LoadedEngine, greedy: list[int]
    ) -> None:
        """A conversation that grows, forks and starts over has the answers that new engines give."""
        ids = models.random_ids(70, seed=2)
        grown = (ids[:8], ids[:40], [*ids[:40], *ids[50:60]])
        prompts = (*grown, ids[:36] + ids[60:66], ids[:39], ids[:8], ids[40:44], ids[:40])
        used = [engine.ask(prompt, 8) for prompt in prompts]
        for place, prompt in enumerate(prompts):
            fresh = subject.engine(models.PLAIN, offer, best, fresh=True).ask(prompt, 8)
            assert used[place] == fresh, f"request {place + 1}, of {len(prompt)} ids, had another answer before"

    def test_ids_come_as_they_are_made(self, subject: Subject, long_engine: LoadedEngine) -> None:
        """The first one long before the last."""
        subject.once("streams", lambda: self._time_ids(long_engine))

    @pytest.fixture
    def streaming_engine(self, subject: Subject, long_engine: LoadedEngine) -> LoadedEngine:
        """An engine that yields each id when it has been made."""
        with needed("generate"):
            subject.once("streams", lambda: self._time_ids(long_engine))
        return long_engine

    def _time_ids(self, long_engine: LoadedEngine) -> None:
        shares = []
        for number in range(_TRIES):
            begun = time.monotonic()
            ids = long_engine.start(models.random_ids(8, seed=number), 200).ids()
            next(ids)
            first = time.monotonic() - begun
            assert len(list(ids)) == 199
            shares.append(first / (time.monotonic() - begun))
            if shares[-1] < 0.5:
                return
        raise AssertionError(f"the first id of 200 came after {min(shares):.0%} of the time")

    def test_closing_an_answer_stops_the_work(
        self, streaming_engine: LoadedEngine, caplog: pytest.LogCaptureFixture
    ) -> None:
        """At once, and the next answer is what it would have been."""
        prompt = models.random_ids(12, seed=3)
        expected = streaming_engine.ask(prompt, 6)
        ids = streaming_engine.start(models.random_ids(16, seed=4), 4000)
        stream = ids.ids()
        next(stream)
        next(stream)
        begun = time.monotonic()
        stream.close()  # type: ignore[attr-defined]
        took = time.monotonic() - begun
        assert streaming_engine.worker.alive, f"the engine did not stop within {took:.1f} s, and was killed"
        notices = [record.getMessage() for record in caplog.records if "cannot be closed" in record.getMessage()]
        assert notices == []
        assert streaming_engine.ask(prompt, 6) == expected, "after an answer that was closed, another one has changed"
        assert streaming_engine.ask(prompt, 6) == expected
        assert _load(streaming_engine) < 0.1, "the engine goes on working after its answer was closed"


def _load(engine: LoadedEngine) -> float:
    """Return how many processors a worker is using, after the moment that an engine may take to tidy up."""
    process = engine.process
    time.sleep(0.3)
    before, begun = process.cpu_times(), time.monotonic()
    time.sleep(0.5)
    now = process.cpu_times()
    return (now.user + now.system - before.user - before.system) / (time.monotonic() - begun)

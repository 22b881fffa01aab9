"""The end of an engine: ``close``, and the memory that comes back."""

from __future__ import annotations

import contextlib

import pytest

from phi3_core.errors import Phi3Error
from phi3_core.values import Artifact, Offer

from . import models
from .base import ContractBase, blocked, usable_artifact
from .engines import LIMIT_S, LoadedEngine
from .subject import Subject

LOADS = 50
_FIRST = 10
"""Loads before memory is measured: allocators keep some of what the first ones freed."""
_LEAST_GROWTH = 24 << 20
"""The growth in bytes that is not judged."""
_LOST = 0.25
"""The share of an artifact's size that every load may keep."""


class Lifetime(ContractBase):
    """Engines that are closed."""

    def test_an_engine_is_closed_after_an_answer_that_was_not_finished(
        self, subject: Subject, offer: Offer, artifact: Artifact, greedy: list[int]
    ) -> None:
        """And loaded again in the same process, where it has the same answer."""
        subject.once("closes", lambda: self._close_midway(subject, offer, artifact, greedy))

    @pytest.fixture
    def closes(self, subject: Subject, offer: Offer, artifact: Artifact, greedy: list[int]) -> None:
        """Tests that close many engines ask for this."""
        try:
            subject.once("closes", lambda: self._close_midway(subject, offer, artifact, greedy))
        except (Phi3Error, AssertionError) as error:
            blocked("close", error)

    def _close_midway(self, subject: Subject, offer: Offer, artifact: Artifact, greedy: list[int]) -> None:
        with subject.start() as worker:
            for _ in range(2):
                engine = LoadedEngine.load(worker, artifact, offer.device, self.options, "conversation")
                with contextlib.closing(engine.start(models.random_ids(9), 60)) as answer:
                    next(answer.ids())
                worker.call("close", limit_s=LIMIT_S)
            engine = LoadedEngine.load(worker, artifact, offer.device, self.options, "conversation")
            assert engine.ask(models.random_ids(24), 24) == greedy

    def test_fifty_loads_give_their_memory_back(self, subject: Subject, offer: Offer, best: str, closes: None) -> None:
        """In one process, each with an answer; what grows with every load ends a server."""
        artifact = usable_artifact(subject, "heavy", offer, best)
        size = sum(file.stat().st_size for file in artifact.path.rglob("*") if file.is_file())
        prompt = models.random_ids(20)
        with subject.start() as worker:
            first = now = 0
            for number in range(1, LOADS + 1):
                engine = LoadedEngine.load(worker, artifact, offer.device, self.options, "conversation")
                engine.ask(prompt, 2)
                worker.call("close", limit_s=LIMIT_S)
                now = engine.process.memory_info().rss
                if number == _FIRST:
                    first = now
        growth, each = now - first, (now - first) / (LOADS - _FIRST)
        allowed = max(_LEAST_GROWTH, (LOADS - _FIRST) * _LOST * size)
        words = f"{LOADS - _FIRST} loads of {size / 1e6:.0f} MB made the process grow by {growth / 1e6:.0f} MB"
        assert growth <= allowed, f"{words}, {each / 1e6:.1f} MB each"

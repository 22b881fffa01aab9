"""The memory of engines that are closed."""

from __future__ import annotations

import pytest

from phi3_core.values import Artifact, Offer

from . import models
from .base import usable_artifact
from .engines import LIMIT_S, LoadedEngine
from .lifetime import Lifetime
from .subject import Subject

LOADS = 50
_FIRST = 10
"""Loads before memory is measured: allocators keep some of what the first ones freed."""
_LEAST_GROWTH = 24 << 20
"""The growth in bytes that is not judged."""
_LOST = 0.25
"""The share of an artifact's size that every load may keep."""


class Memory(Lifetime):
    """What many engines leave behind."""

    @pytest.fixture
    def heavy(self, subject: Subject, offer: Offer, best: str, closes: None) -> Artifact:
        """A quantized model of 10 MB."""
        return usable_artifact(subject, "heavy", offer, best)

    def test_fifty_loads_give_their_memory_back(self, subject: Subject, offer: Offer, heavy: Artifact) -> None:
        """In one process, each with an answer; what grows with every load ends a server."""
        size = sum(file.stat().st_size for file in heavy.path.rglob("*") if file.is_file())
        prompt = models.random_ids(20)
        with subject.start() as worker:
            first = now = 0
            for number in range(1, LOADS + 1):
                engine = LoadedEngine.load(worker, heavy, offer.device, self.options, "conversation")
                engine.ask(prompt, 2)
                worker.call("close", limit_s=LIMIT_S)
                now = engine.process.memory_info().rss
                if number == _FIRST:
                    first = now
        growth, each = now - first, (now - first) / (LOADS - _FIRST)
        allowed = max(_LEAST_GROWTH, (LOADS - _FIRST) * _LOST * size)
        words = f"{LOADS - _FIRST} loads of {size / 1e6:.0f} MB made the process grow by {growth / 1e6:.0f} MB"
        assert growth <= allowed, f"{words}, {each / 1e6:.1f} MB each"

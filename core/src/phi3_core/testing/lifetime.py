"""The end of an engine: ``close``, and the memory that comes back."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import pytest

from phi3_core.interpreter import module_command
from phi3_core.values import Artifact, Offer, to_plain

from . import closing, models
from .base import ContractBase, needed, usable_artifact
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

    def test_an_engine_can_be_closed_twice(
        self, subject: Subject, offer: Offer, artifact: Artifact, closes: None
    ) -> None:
        """The second time does nothing, and the process ends by itself."""
        given = {"backend": subject.backend, "artifact": artifact, "device": offer.device, "options": subject.options}
        text = json.dumps(to_plain({**given, "prompt": models.random_ids(9)}))
        with subject.surroundings():
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))}
            done = subprocess.run(
                module_command(closing.__name__, text),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=LIMIT_S,
                check=False,
            )
        said = done.stdout.decode("utf-8", "replace").strip()
        assert closing.CLOSED in said, f"closing an engine twice failed: {said[-2000:]}"
        assert done.returncode == 0, f"a process whose engine was closed ended with {done.returncode}: {said[-2000:]}"

    @pytest.fixture
    def closes(self, subject: Subject, offer: Offer, artifact: Artifact, greedy: list[int]) -> None:
        """Tests that close many engines ask for this."""
        with needed("close"):
            subject.once("closes", lambda: self._close_midway(subject, offer, artifact, greedy))

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

"""The end of an engine: ``close``."""

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
from .base import ContractBase, needed
from .engines import LIMIT_S, LoadedEngine
from .subject import Subject


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

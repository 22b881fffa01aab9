"""``load``: an engine, or an error that says what is wrong."""

from __future__ import annotations

import pytest
from attrs import evolve

from phi3_core.errors import ModelError, UsageError
from phi3_core.values import Artifact, Offer

from . import models
from .answers import COUNT, PROMPT
from .base import ContractBase
from .engines import LoadedEngine
from .judging import check_greedy
from .subject import Subject


class Loading(ContractBase):
    """Engines, and what ``load`` refuses."""

    @pytest.mark.parametrize("purpose", ["answer", "conversation", "evaluation"])
    def test_load_makes_an_engine(
        self, subject: Subject, offer: Offer, offered: str, made: Artifact, purpose: str
    ) -> None:
        """Of each precision, for each purpose."""
        subject.engine(models.PLAIN, offer, offered, purpose)

    @pytest.mark.parametrize("tokens", [1, COUNT, models.CONTEXT + 1])
    def test_load_takes_about_any_length_of_the_prompt(
        self, subject: Subject, offer: Offer, best: str, greedy: list[int], tokens: int
    ) -> None:
        """It is an estimate: the prompt may be longer or shorter, and the estimate beyond the context."""
        engine = subject.engine(models.PLAIN, offer, best, "answer", prompt_tokens=tokens)
        found = engine.ask(PROMPT, 4)
        assert len(found) == 4, f"loaded for a prompt of about {tokens} ids, 4 ids became {len(found)}"
        check_greedy(subject, models.PLAIN, best, PROMPT, found)

    def test_load_may_tell_its_progress(self, subject: Subject, engine: LoadedEngine) -> None:
        """It need not; what it tells can be shown."""
        subject.told.check("load")

    def test_the_context_is_no_longer_than_the_models(self, engine: LoadedEngine) -> None:
        """Beyond it, no answer means anything."""
        words = f"the model has a context of {models.CONTEXT} tokens, and its engine one of {engine.context_length}"
        assert engine.context_length <= models.CONTEXT, words

    def test_load_refuses_an_option_that_it_does_not_know(
        self, subject: Subject, offer: Offer, best: str, artifact: Artifact, engine: LoadedEngine
    ) -> None:
        """It is an error of usage; a misspelt option would have no effect."""
        options = {**self.options, "no_such_option_of_phi3": "1"}
        with pytest.raises(UsageError):
            LoadedEngine.load(subject.worker, artifact, offer.device, options, "conversation")

    @pytest.mark.parametrize("harm", ["half", "empty"])
    def test_load_refuses_weights_that_were_cut(
        self, subject: Subject, offer: Offer, artifact: Artifact, engine: LoadedEngine, harm: str
    ) -> None:
        """A damaged artifact is named as such, and the process survives it."""
        folder = subject.copied(artifact.path, "cut")
        files = [path for path in folder.rglob("*") if path.is_file()]
        largest = max(files, key=lambda file: file.stat().st_size)
        content = largest.read_bytes()
        largest.write_bytes(content[: len(content) // 2 if harm == "half" else 0])
        damaged = evolve(artifact, path=folder, manifest={"digest": f"{harm}".ljust(64, "1")})
        worker = subject.worker
        with pytest.raises(ModelError):
            LoadedEngine.load(worker, damaged, offer.device, self.options, "conversation")
        assert worker.alive

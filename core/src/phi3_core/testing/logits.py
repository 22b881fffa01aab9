"""``logits``: those of the original, within a bound for each precision."""

from __future__ import annotations

import numpy as np
import pytest

from phi3_core.evaluation.metrics import measure
from phi3_core.values import Offer

from . import models
from .base import ContractBase, usable_artifact, usable_engine
from .engines import LoadedEngine
from .judging import BOUNDS
from .subject import Subject

IDS = models.random_ids(64, seed=6)


class Logits(ContractBase):
    """Logits of each shape of the family, in each precision."""

    @pytest.fixture
    def evaluated(self, subject: Subject, offer: Offer, offered: str, shape: str, quantizes: None) -> LoadedEngine:
        """An engine for an evaluation."""
        self.needs(subject, "logits")
        usable_artifact(subject, shape, offer, offered)
        return usable_engine(subject, shape, offer, offered, "evaluation")

    def test_logits_are_those_of_the_original(
        self, subject: Subject, evaluated: LoadedEngine, shape: str, offered: str
    ) -> None:
        """Also past a sliding window, and beyond the original context of longrope."""
        bound = BOUNDS[offered]
        for size in sorted({24, min(len(IDS), evaluated.context_length)}):
            ids = IDS[:size]
            found = evaluated.logits(ids)
            quality = measure(ids, subject.reference(shape, ids), found)
            words = f"of {size} ids: top-1 {quality.top1_agreement:.0%}, KL divergence {quality.kl_mean:.2g}"
            assert quality.top1_agreement >= bound.agreement, f"at least {bound.agreement:.0%} is expected {words}"
            assert quality.kl_mean <= bound.divergence, f"at most {bound.divergence:.2g} is expected {words}"

    @pytest.fixture
    def plain(self, subject: Subject, offer: Offer, best: str, quantizes: None) -> LoadedEngine:
        """An engine for an evaluation, with a model of :data:`models.PLAIN`."""
        self.needs(subject, "logits")
        usable_artifact(subject, models.PLAIN, offer, best)
        return usable_engine(subject, models.PLAIN, offer, best, "evaluation")

    def test_logits_are_repeatable(self, plain: LoadedEngine) -> None:
        """The same ids have the same logits, whatever came between."""
        first = plain.logits(IDS[:40])
        plain.logits(IDS[20:50])
        again = plain.logits(IDS[:40])
        assert np.array_equal(first, again), f"the same logits differ by up to {np.abs(first - again).max():.2g}"

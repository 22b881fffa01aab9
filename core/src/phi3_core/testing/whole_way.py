"""What users run: a model by its path, through survey, quantizing, the store, the worker and the text."""

from __future__ import annotations

from typing import Any

from phi3_core.api import load
from phi3_core.values import Offer

from .base import ContractBase
from .subject import Subject


class WholeWay(ContractBase):
    """The public interface, with a store of its own."""

    def test_users_get_an_answer(self, subject: Subject, offer: Offer, best: str, greedy: list[int]) -> None:
        """The model is quantized, measured, loaded and asked; the second time it comes from the store."""
        path = str(subject.source("long").path)
        settings: dict[str, Any] = {"device": str(offer.device), "precision": best, "options": self.options}
        texts = []
        with subject.surroundings():
            for _ in range(2):
                with load(path, **settings) as model:
                    reply = model.generate("Hello", max_new_tokens=12)
                    assert (reply.device, reply.precision) == (str(offer.device), best)
                    assert 0 < reply.completion_tokens <= 12
                    texts.append(reply.text)
        assert texts[0] == texts[1]
        made = [each.parent for each in (subject.home / "artifacts").rglob("phi3.json")]
        assert len(made) == 1, f"the store has {len(made)} artifacts of one model"

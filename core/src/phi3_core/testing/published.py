"""``published``: an answer for every model of the catalogue, and for every other name."""

from __future__ import annotations

import re

from phi3_core.models.catalogue import CATALOGUE
from phi3_core.values import Offer, Published

from .base import ContractBase
from .subject import Subject

_REPOSITORY = re.compile(r"package:[\w.-]+|[\w.-]+/[\w.-]+")


class PublishedWeights(ContractBase):
    """Where the backend says that weights are published."""

    def test_published_answers_for_every_model(self, subject: Subject, offer: Offer) -> None:
        """With a repository and a folder in it, or with nothing."""
        self.needs(subject, "published")
        for name in (*CATALOGUE, "sample", "no-such-model"):
            for precision in offer.precisions:
                found = subject.call("published", model=name, device=offer.device, precision=precision)
                if found is None:
                    continue
                assert name != "no-such-model", "published knows weights of a model that does not exist"
                place = Published(**found)
                assert _REPOSITORY.fullmatch(place.repository), f"{place.repository!r} is no repository"
                parts = place.folder.split("/") if place.folder else []
                assert all(part not in {"", ".", ".."} for part in parts), f"{place.folder!r} is no folder in it"

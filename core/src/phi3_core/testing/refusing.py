"""Recipes that a backend cannot make, and weights that are damaged: refused before any work, by the right error."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from phi3_core.errors import ModelError, UsageError
from phi3_core.values import Artifact, Offer, Recipe

from . import models
from .base import ContractBase
from .subject import Subject

RECIPES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("a setting that nobody knows", {"extra": {"no_such_setting_of_phi3": "1"}}),
    ("groups that do not divide the inputs", {"group_size": 7}),
    ("a calibration that is not there", {"extra": {"calibration": "no-such-file-of-phi3.txt"}}),
)


class Refusing(ContractBase):
    """What ``quantize`` refuses."""

    @pytest.mark.parametrize("recipe", [recipe for _, recipe in RECIPES], ids=[name for name, _ in RECIPES])
    def test_quantize_refuses_a_recipe_before_the_work(
        self, subject: Subject, offer: Offer, artifact: Artifact, recipe: dict[str, Any]
    ) -> None:
        """A recipe that is not supported is an error of usage, and nothing is written."""
        lowest = next(each for each in ("int4", "int8", "fp16") if each in offer.precisions)
        if lowest != "int4" and "group_size" in recipe:
            pytest.skip(f"{offer.device} offers no int4, so that it has no groups to refuse")
        output = subject.empty("refused")
        with pytest.raises(UsageError):
            subject.quantize(subject.source(models.PLAIN), offer, Recipe(precision=lowest, **recipe), output)
        assert not list(output.iterdir()), "quantize wrote something before it refused"

    def test_quantize_refuses_weights_that_are_not_finite(
        self, subject: Subject, offer: Offer, offered: str, made: Artifact
    ) -> None:
        """A damaged file is named as such, in every precision, instead of becoming an artifact."""
        source = subject.source(models.PLAIN)
        folder = subject.copied(source.path, "damaged")
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-2] + b"\xff\x7f")  # no number, last in the output layer
        with pytest.raises(ModelError):
            subject.quantize(evolve(source, path=folder), offer, Recipe(precision=offered), subject.empty("output"))

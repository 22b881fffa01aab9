"""How far from the original an engine may be, by precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import frozen

from .subject import Subject


@frozen
class Bound:
    """Limits of one precision, for the kit's models, whose random weights suit few bits worst."""

    agreement: float
    """The share of positions at which the likeliest token is at least the same."""
    divergence: float
    """The mean KL divergence from the original at most, in nats."""
    regret: float
    """By how much less likely than the likeliest a greedy token may be: a share of the range of the logits."""


BOUNDS = {
    "fp16": Bound(0.9, 2e-3, 0.02),
    "int8": Bound(0.8, 0.02, 0.05),
    "int4": Bound(0.15, 0.6, 0.5),
}


def check_greedy(subject: Subject, name: str, precision: str, prompt: Sequence[int], found: Sequence[int]) -> None:
    """Check that each id of a greedy answer is one that the original might choose.

    Raises:
        AssertionError: an id is too unlikely.
    """
    for place, token in enumerate(found):
        # One by one: longrope's factors depend on how many there are.
        row = subject.reference(name, [*prompt, *found[:place]])[-1]
        regret = float((row.max() - row[token]) / np.ptp(row))
        assert regret <= BOUNDS[precision].regret, (
            f"after {len(prompt) + place} ids, {name} in {precision} goes on with {token}, "
            f"and the original with {int(row.argmax())}, whose logit is higher by {regret:.0%} of the range"
        )

"""How far from the original an engine may be, by precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from attrs import frozen

from phi3_core.checkpoint.safetensors import Floats

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
    for place, (token, row) in enumerate(zip(found, _rows(subject, name, prompt, found), strict=True)):
        regret = float((row.max() - row[token]) / np.ptp(row))
        assert regret <= BOUNDS[precision].regret, (
            f"after {len(prompt) + place} ids, {name} in {precision} goes on with {token}, "
            f"and the original with {int(row.argmax())}, whose logit is higher by {regret:.0%} of the range"
        )


def _rows(subject: Subject, name: str, prompt: Sequence[int], found: Sequence[int]) -> Iterator[Floats]:
    """Yield the original's logits before each id of an answer. Longrope's factors are those of the ids until then."""
    ids = [*prompt, *found[:-1]]
    rotary = subject.original(name).architecture.rotary
    short = len(ids) if rotary.long is None else min(len(ids), rotary.original_context)
    for count in range(len(prompt), len(prompt) + len(found)):
        yield subject.reference(name, ids if count > short else ids[:short])[count - 1]

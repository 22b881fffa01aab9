"""What an artifact is known to answer: a text, and the likeliest tokens after parts of it. Kept in the manifest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from phi3_core.paths import DAMAGED

MANIFEST_KEY = "answers"


@frozen
class Step:
    """The likeliest tokens at one position, the likeliest first."""

    ids: tuple[int, ...]
    lost: tuple[float, ...]
    """How much less likely each is than the first, in nats."""

    def loss(self, token: int) -> float:
        """Return how much less likely ``token`` is than the likeliest one, in nats; of other tokens at least that."""
        return self.lost[self.ids.index(token)] if token in self.ids else self.lost[-1]


@frozen
class Chain:
    """A part of the text after which the likeliest tokens are those of the text, for all steps but the last."""

    prompt: int
    """How many ids of the text come before it."""
    steps: tuple[Step, ...]


@frozen
class KnownAnswers:
    """The known answers of an artifact."""

    ids: tuple[int, ...]
    """The text."""
    chains: tuple[Chain, ...]
    """Shorter prompts first."""


def to_manifest(known: KnownAnswers) -> dict[str, Any]:
    """Return known answers in the form of the manifest."""
    return {
        "ids": list(known.ids),
        "chains": [
            {"prompt": chain.prompt, "steps": [[list(step.ids), list(step.lost)] for step in chain.steps]}
            for chain in known.chains
        ],
    }


def from_manifest(manifest: Mapping[str, Any]) -> KnownAnswers | None:
    """Return the known answers of a manifest; None if it has none, or they make no sense."""
    try:
        given = manifest[MANIFEST_KEY]
        ids = tuple(map(_id, given["ids"]))
        chains = tuple(_chain(each, len(ids)) for each in given["chains"])
    except DAMAGED:
        return None
    return KnownAnswers(ids, chains) if chains else None


def _chain(given: Mapping[str, Any], length: int) -> Chain:
    steps = tuple(_step(*each) for each in given["steps"])
    if not steps or not 0 < _id(given["prompt"]) <= length - len(steps) + 1:
        raise ValueError("a chain leads out of the text")
    return Chain(given["prompt"], steps)


def _step(ids: list[int], lost: list[float]) -> Step:
    if not ids or len(ids) != len(lost) or not all(math.isfinite(each) and each >= 0 for each in lost):
        raise ValueError("a step has no tokens")
    return Step(tuple(map(_id, ids)), tuple(map(float, lost)))


def _id(given: Any) -> int:
    if type(given) is not int or given < 0:
        raise ValueError(f"{given!r} is no token id")
    return given

"""Whether answers are wrong. Pure; where the thresholds are from is in decision 43."""

from __future__ import annotations

from collections.abc import Sequence

from .known import Chain

ALLOWED = 0.08
"""Nats that a step may lose on average: kernels that round otherwise lose up to 0.05."""
_SLACK = 2.0
"""Nats beyond that."""
_LARGEST = 5.0
"""The nats that one step counts for at most."""
_CLEARLY = 0.5
"""Nats from which on a token is no near tie."""
DOUBTFUL = 0.25
"""Nats that are lost by no kernel which the answers are from, so that more has to be asked."""
COPIES = 0.75
"""The share of steps at which a model that can copy a text does so."""
CANNOT = 0.25
"""The share that no trained model falls below."""
FEWEST = 4
"""Steps of which a share can be told."""


def losses(chain: Chain, given: Sequence[int]) -> list[float]:
    """Return how much less likely each id that a device has given is than the likeliest one, in nats."""
    return [step.loss(token) for step, token in zip(chain.steps, given, strict=False)]


def is_wrong(lost: Sequence[float]) -> bool:
    """Return whether a device has lost more than kernels may differ, at two steps or more."""
    clearly = sum(each > _CLEARLY for each in lost)
    return clearly > 1 and sum(min(each, _LARGEST) for each in lost) > _SLACK + ALLOWED * len(lost)


def share(given: Sequence[int], expected: Sequence[int]) -> float | None:
    """Return the share of steps with the expected id; None if there are too few."""
    if len(given) < min(FEWEST, len(expected)):
        return None
    return sum(one == other for one, other in zip(given, expected, strict=False)) / len(given)

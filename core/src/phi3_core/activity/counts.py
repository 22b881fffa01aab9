"""Counters of busy time, which only grow, and the share between two readings of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Key(NamedTuple):
    """What a counter counts."""

    kind: str
    """``gpu`` or ``npu``."""
    device: str
    part: str = ""
    """A part of the device that works beside the others, such as its copy engine."""
    client: str = ""
    """Who used it; empty for all programs."""


class Count(NamedTuple):
    """A counter's reading, in any unit."""

    busy: float
    total: float
    """What the counter would have grown by if the device had always been busy."""


Counts = Mapping[Key, Count]


def share(kind: str, before: Counts, after: Counts) -> float | None:
    """Return the share of the busiest part of the busiest device of a kind, 0 to 1; None if there is no counter.

    The shares of a part's clients add up. A client that has come or gone between the readings is left out. A counter
    that has gone back, as drivers' may for a moment, counts as idle.
    """
    shares: dict[tuple[str, str], float] = {}
    for key in before.keys() & after.keys():
        busy, total = (end - start for start, end in zip(before[key], after[key], strict=True))
        if key.kind == kind and total > 0:
            part = key.device, key.part
            shares[part] = shares.get(part, 0.0) + max(0.0, busy / total)
    return min(1.0, max(shares.values())) if shares else None

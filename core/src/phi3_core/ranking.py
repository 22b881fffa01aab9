"""Order devices, and say why each has its place. Pure: see decision 41.

Measured devices are compared by their figures, others by what is known of their kind. An unmeasured device comes after
every measured one that its kind would put before it, and before all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import field, frozen

from .figures.values import TASK, Failure, Figures, age
from .values import MATURITIES, Offer

KINDS_BY_POLICY = {
    "performance": ("dgpu", "gpu", "npu", "cpu"),
    "efficiency": ("npu", "gpu", "cpu", "dgpu"),
}
_ALIKE = 1.1
"""The ratio to the best figure of a group up to which others belong to it, so that noise does not change the order."""


@frozen(kw_only=True)
class Contender:
    """A device that is to be ranked."""

    offer: Offer
    policy: str = field()
    """``performance`` or ``efficiency``."""
    figures: Figures | None = None
    failure: Failure | None = None
    now: float = 0.0
    """The time, in seconds since the epoch."""

    @property
    def prior(self) -> tuple[int, int, int, str]:
        """The sort key of what is not measured: kind, maturity, memory and name."""
        device = self.offer.device
        return (
            KINDS_BY_POLICY[self.policy].index(device.kind),
            MATURITIES.index(self.offer.maturity),
            -(device.memory_bytes or 0),
            str(device),
        )

    @property
    def cost(self) -> float | None:
        """What the policy compares: seconds for :data:`TASK`, or joules for a token; None if it was not measured."""
        if self.figures is None or not self.figures.counted:
            return None
        return self.figures.task_s if self.policy == "performance" else self.figures.joules_per_token


def ranked(contenders: Sequence[Contender]) -> list[Contender]:
    """Return the devices, best first; those that failed come last."""
    works = _ranked([each for each in contenders if each.failure is None])
    return [*works, *_ranked([each for each in contenders if each.failure is not None])]


def _ranked(contenders: Sequence[Contender]) -> list[Contender]:
    by_prior = sorted(contenders, key=lambda each: each.prior)
    groups = _groups(by_prior)
    measured = [each for group in groups for each in by_prior if each.cost is not None and each.cost in group]
    found = list(measured)
    for each in reversed([each for each in by_prior if each.cost is None]):
        before = [place for place, other in enumerate(measured) if other.prior < each.prior]
        found.insert(before[-1] + 1 if before else 0, each)
    return _legacy_last(found)


def _groups(contenders: Iterable[Contender]) -> list[set[float]]:
    """Return the measured costs, the best first, in groups of those that are taken for the same.

    A group begins with its best cost and not at a fixed one, which two figures that hardly differ could lie around.
    """
    found: list[set[float]] = []
    best = 0.0
    for cost in sorted(each.cost for each in contenders if each.cost is not None):
        if not found or cost > best * _ALIKE:
            found.append(set())
            best = cost
        found[-1].add(cost)
    return found


def _legacy_last(order: list[Contender]) -> list[Contender]:
    """Move each legacy device behind those of its kind that are not: no figure makes up for a lack of upkeep."""
    found = list(order)
    for each in order:
        if each.offer.maturity != "legacy":
            continue
        kind = each.offer.device.kind
        better = [other for other in found if other.offer.device.kind == kind and other.offer.maturity != "legacy"]
        if better and found.index(each) < found.index(better[-1]):
            found.remove(each)
            found.insert(found.index(better[-1]) + 1, each)
    return found


# --- the reasons ------------------------------------------------------------------------------------------------------


def reasons(place: int, order: Sequence[Contender]) -> list[str]:
    """Return why a device has its place (from 1 on), and what was measured of it."""
    each = order[place - 1]
    found = []
    if each.failure is not None:
        left = each.failure.left_s(each.now)
        if len(order) > 1:
            found.append(f"put last for another {_minutes(left)}")
        found.append(f"it failed {age(each.now - each.failure.time)}: {each.failure.reason}")
    elif place > 1:
        found.append(_after(order[place - 2], each, _groups(other for other in order if other.failure is None)))
    if each.figures is not None and each.figures.enough:
        found.append(measured(each))
    return found


def measured(each: Contender) -> str:
    """Return the figures of a device as words."""
    figures = each.figures
    assert figures is not None
    when = f"{figures.precision}, measured {age(each.now - figures.measured)}"
    if figures.changed:
        return f"its figures ({when}) are not counted: {figures.changed}"
    if figures.by == "answers":
        when = f"{when} by {figures.runs} answers"
    words = []
    if figures.task_s is not None:
        words.append(f"{TASK[0]} + {TASK[1]} tokens in {figures.task_s:.3g} s")
    if figures.joules_per_token is not None:
        words.append(f"{figures.joules_per_token:.3g} J for a token")
    return f"{', '.join(words) or 'its figures say nothing of the task'} ({when})"


def _after(better: Contender, each: Contender, groups: Sequence[set[float]]) -> str:
    """Return why ``better`` ranks before ``each``."""
    ours, theirs = each.offer.device, better.offer.device
    if ours.kind == theirs.kind and each.offer.maturity == "legacy" != better.offer.maturity:
        return f"legacy comes after {better.offer.maturity}"
    measured = each.cost is not None and better.cost is not None
    alike = measured and any({each.cost, better.cost} <= group for group in groups)
    if measured and not alike:
        return f"{'slower' if each.policy == 'performance' else 'takes more energy'} than {theirs}"
    return f"{f'as good as {theirs}; ' if alike else ''}{_by_prior(better, each)}"


def _by_prior(better: Contender, each: Contender) -> str:
    """Return the first part of the prior that differs."""
    ours, theirs = each.offer.device, better.offer.device
    if ours.kind != theirs.kind:
        return f"{ours.kind} comes after {theirs.kind}"
    if each.offer.maturity != better.offer.maturity:
        return f"{each.offer.maturity} comes after {better.offer.maturity}"
    if (ours.memory_bytes or 0) != (theirs.memory_bytes or 0):
        return f"less memory than {theirs}" if ours.memory_bytes else f"its memory is not known, that of {theirs} is"
    return f"after {theirs} by name"


def _minutes(seconds: float) -> str:
    count = max(1, round(seconds / 60))
    return f"{count} minute{'s' if count > 1 else ''}"

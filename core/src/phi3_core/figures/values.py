"""Figures of one model at one precision on one device. Pure values: the store keeps them, selection compares them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from attrs import field, frozen

TASK = (128, 128)
"""Prompt tokens and new tokens of the task that devices are compared by."""
_FARTHEST = 4
HELD_BACK_S = 3600.0
"""For how many seconds a device that failed is put last."""
ENOUGH = 3
"""Answers from which on their figures rank. The first one after a start reads the weights from disk."""


@frozen(kw_only=True)
class Subject:
    """What figures are of."""

    backend: str
    device: str
    """The backend's identifier of the device, e.g. ``GPU.0``."""
    model: str
    """The model's name in the store, which contains a fingerprint for a user's own files."""
    precision: str


@frozen(kw_only=True)
class Conditions:
    """What figures hold under. They are not counted any more when one of these has changed."""

    version: str
    """The backend's distribution and its version."""
    runtime: Mapping[str, str] = field(factory=dict)
    """Versions of the distributions that the backend requires, such as its engine."""
    driver: str | None = None
    name: str = ""
    """The device's name."""
    content: str = ""
    """The digest of the artifact; empty if it is unknown."""

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Conditions:
        """Return conditions from JSON. Raises KeyError, TypeError or ValueError if they are not whole."""
        return cls(**{**content, "runtime": dict(content["runtime"])})

    def change(self, now: Conditions) -> str:
        """Return what differs now, as words; empty if nothing does.

        ``now`` may have more of the runtime's distributions. A content that is unknown on either side does not differ.
        """
        if self.name != now.name:
            return f"the device was {self.name}"
        if self.driver != now.driver:
            return f"the driver was {self.driver or 'unknown'}, and is {now.driver or 'unknown'}"
        if self.version != now.version:
            return f"the backend was {self.version}"
        for name, version in self.runtime.items():
            if now.runtime.get(name) != version:
                return f"{name} was {version}, and is {now.runtime.get(name, 'not installed')}"
        if self.content and now.content and self.content != now.content:
            return "the weights were others"
        return ""


@frozen(kw_only=True)
class Figures:
    """What was measured, by ``phi3 bench`` or by answers."""

    precision: str
    first_token_s: Mapping[int, float] = field(factory=dict)
    """Seconds to the first token, by the number of prompt tokens."""
    decode_tokens_per_s: float | None = None
    load_s: float | None = None
    peak_memory_bytes: int | None = None
    """The largest resident memory of the worker process, mapped weights included."""
    joules_per_token: float | None = None
    measured: float = 0.0
    """When, in seconds since the epoch."""
    by: str = "bench"
    """``bench`` or ``answers``."""
    runs: int = 1
    """How many measurements or answers they come from."""
    changed: str = ""
    """What has changed since; if it is not empty, the figures are not counted."""

    @property
    def enough(self) -> bool:
        """Whether they come from enough measurements."""
        return self.by == "bench" or self.runs >= ENOUGH

    @property
    def counted(self) -> bool:
        """Whether the figures rank."""
        return self.enough and not self.changed

    def first_token(self, prompt_tokens: int) -> float | None:
        """Return the expected seconds to the first token; None if nothing like it was measured.

        Between two measured lengths it is interpolated. Beyond them, it is proportional to the length, up to four times
        as much or little.
        """
        below = max((count for count in self.first_token_s if count <= prompt_tokens), default=None)
        above = min((count for count in self.first_token_s if count >= prompt_tokens), default=None)
        if below is not None and above is not None:
            start, end = self.first_token_s[below], self.first_token_s[above]
            return start if below == above else start + (end - start) * (prompt_tokens - below) / (above - below)
        nearest = above if below is None else below
        if nearest is None or not prompt_tokens <= nearest * _FARTHEST <= prompt_tokens * _FARTHEST**2:
            return None
        return self.first_token_s[nearest] * prompt_tokens / nearest

    @property
    def task_s(self) -> float | None:
        """Return the expected seconds for :data:`TASK`; None if they are not known."""
        prompt, new = TASK
        first = self.first_token(prompt)
        if first is None or not self.decode_tokens_per_s:
            return None
        return first + (new - 1) / self.decode_tokens_per_s


def bucket(tokens: int) -> int:
    """Return the power of two that a number of tokens is next to, by ratio."""
    power = max(tokens, 1).bit_length() - 1
    return 1 << (power + (tokens * tokens > 1 << (2 * power + 1)))


def by_length(samples: Iterable[tuple[int, float]]) -> dict[int, float]:
    """Return medians of samples of tokens and seconds, by the median number of tokens of each :func:`bucket`."""
    groups: dict[int, list[tuple[int, float]]] = {}
    for tokens, seconds in samples:
        groups.setdefault(bucket(tokens), []).append((tokens, seconds))
    return {
        round(median(tokens for tokens, _ in group)): median(seconds for _, seconds in group)
        for _, group in sorted(groups.items())
    }


def age(seconds: float) -> str:
    """Return how long ago something was, as words."""
    if seconds < 60:
        return "just now"
    for unit, length, longest in (("minute", 60, 3600), ("hour", 3600, 86400), ("day", 86400, None)):
        if longest is None or seconds < longest:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    raise AssertionError


@frozen(kw_only=True)
class Failure:
    """A device that failed."""

    device: str
    """The device as ``backend:device``."""
    reason: str
    time: float
    """When, in seconds since the epoch."""
    version: str = ""
    """The backend's distribution and its version."""
    driver: str | None = None

    def left_s(self, now: float) -> float:
        """Return for how many seconds the device is put last; 0 if it is not any more, or if the clock was set back."""
        passed = now - self.time
        return HELD_BACK_S - passed if 0 <= passed < HELD_BACK_S else 0.0


@frozen(kw_only=True)
class Known:
    """What is known of the devices of a machine beside what the backends say."""

    figures: Mapping[tuple[str, str], Figures] = field(factory=dict)
    """By ``backend:device`` and precision."""
    failures: Mapping[str, Failure] = field(factory=dict)
    """By ``backend:device``: those that are put last."""
    now: float = 0.0
    """The time, in seconds since the epoch."""

    def of(self, device: str, precisions: Iterable[str]) -> Figures | None:
        """Return the figures of the first precision that has any that count, else of the first that has any."""
        found = [self.figures[device, each] for each in precisions if (device, each) in self.figures]
        return next((each for each in found if each.counted), found[0] if found else None)

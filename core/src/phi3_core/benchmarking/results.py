"""What was measured, as values that go to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from attrs import field, frozen

from phi3_core.figures.values import Figures, by_length
from phi3_core.values import Device, values_of


@frozen(kw_only=True)
class Spread:
    """Several measurements of the same thing."""

    median: float = field(converter=float)
    least: float = field(converter=float)
    most: float = field(converter=float)
    runs: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Return the spread of one or more samples."""
        return cls(median=median(samples), least=min(samples), most=max(samples), runs=len(samples))


def _spread(given: Any) -> Any:
    return Spread(**given) if isinstance(given, Mapping) else given


@frozen(kw_only=True)
class TaskResult:
    """One task, at so many answers at once."""

    task: str
    prompt_tokens: int
    new_tokens: int
    clipped: bool
    at_once: int
    first_token_s: Spread = field(converter=_spread)
    decode_tokens_per_s: Spread = field(converter=_spread)
    """Tokens per second after the first one; of several at once, all of their tokens per second."""
    joules_per_token: float | None = None
    """None if the system does not tell."""


def _tasks(given: Any) -> Any:
    return values_of(TaskResult, given)


@frozen(kw_only=True)
class Result:
    """One device at one precision."""

    device: str
    kind: str
    name: str
    precision: str
    backend: str = ""
    """The backend's distribution and its version."""
    driver: str | None = None
    load_s: float | None = None
    peak_memory_bytes: int | None = None
    """The largest resident memory of the worker process, mapped weights included; None if it is not known."""
    context_length: int | None = None
    max_concurrency: int = 1
    tasks: tuple[TaskResult, ...] = field(default=(), converter=_tasks)
    error: str = ""
    """Why the measurement ended early, or did not begin; empty if it is complete."""

    def figures(self, now: float) -> Figures | None:
        """Return the figures that selection compares; None if no task was measured one answer at a time."""
        single = [each for each in self.tasks if each.at_once == 1]
        if not single:
            return None
        return Figures(
            precision=self.precision,
            first_token_s=by_length([(each.prompt_tokens, each.first_token_s.median) for each in single]),
            decode_tokens_per_s=single[0].decode_tokens_per_s.median,
            load_s=self.load_s,
            peak_memory_bytes=self.peak_memory_bytes,
            joules_per_token=single[0].joules_per_token,
            measured=now,
            runs=single[0].first_token_s.runs,
        )

    @classmethod
    def of_device(cls, device: Device, precision: str, **facts: Any) -> Result:
        """Return a result for a device."""
        facts = {"driver": device.driver, **facts}
        return cls(device=str(device), kind=device.kind, name=device.name, precision=precision, **facts)


def _results(given: Any) -> Any:
    return values_of(Result, given)


@frozen(kw_only=True)
class Report:
    """All of a run of ``phi3 bench``."""

    format: int = 1
    phi3_core: str
    model: str
    time: str
    """When it was begun, in ISO 8601."""
    machine: Mapping[str, Any]
    repeats: int
    results: tuple[Result, ...] = field(converter=_results)
    interrupted: bool = False

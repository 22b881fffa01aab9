"""What was measured, as values that go to JSON and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from attrs import field, frozen, validators

from phi3_core.figures.values import Figures, by_length
from phi3_core.values import Device, values_of

if TYPE_CHECKING:
    from attrs import Attribute


_text, _count = validators.instance_of(str), validators.instance_of(int)


def _measurement(_: object, attribute: Attribute[float], value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{attribute.name} is {value}")


@frozen(kw_only=True)
class Spread:
    """Several measurements of the same thing."""

    median: float = field(converter=float, validator=_measurement)
    least: float = field(converter=float, validator=_measurement)
    most: float = field(converter=float, validator=_measurement)
    runs: int = field(validator=_count)

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Return the spread of one or more samples."""
        return cls(median=median(samples), least=min(samples), most=max(samples), runs=len(samples))


def _all_of(kind: type[Any]) -> Any:
    return validators.deep_iterable(validators.instance_of(kind))


def _spread(given: Any) -> Any:
    return Spread(**given) if isinstance(given, Mapping) else given


@frozen(kw_only=True)
class TaskResult:
    """One task, at so many answers at once."""

    task: str = field(validator=_text)
    prompt_tokens: int = field(validator=_count)
    new_tokens: int = field(validator=_count)
    clipped: bool
    at_once: int = field(validator=_count)
    first_token_s: Spread = field(converter=_spread, validator=validators.instance_of(Spread))
    decode_tokens_per_s: Spread = field(converter=_spread, validator=validators.instance_of(Spread))
    """Tokens per second after the first one; of several at once, all of their tokens per second."""
    joules_per_token: float | None = None
    """None if the system does not tell."""


def _tasks(given: Any) -> Any:
    return values_of(TaskResult, given)


@frozen(kw_only=True)
class Result:
    """One device at one precision."""

    device: str = field(validator=_text)
    kind: str
    name: str
    precision: str = field(validator=_text)
    backend: str = ""
    """The backend's distribution and its version."""
    driver: str | None = None
    load_s: float | None = None
    peak_memory_bytes: int | None = None
    """The largest resident memory of the worker process, mapped weights included; None if it is not known."""
    context_length: int | None = None
    max_concurrency: int = 1
    tasks: tuple[TaskResult, ...] = field(default=(), converter=_tasks, validator=_all_of(TaskResult))
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
    machine: Mapping[str, Any] = field(validator=validators.instance_of(dict))
    repeats: int
    results: tuple[Result, ...] = field(converter=_results, validator=_all_of(Result))
    interrupted: bool = False

"""How busy processors were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

SHARES = ("cpu", "engine_cpu", "gpu", "npu")
"""The fields of :class:`Activity` that are shares."""


@frozen(kw_only=True)
class Activity:
    """How busy processors were between two readings: shares from 0 to 1, None where the system does not tell."""

    seconds: float = 0.0
    """The time between the readings."""
    cpu: float | None = None
    """All logical processors, whatever ran on them."""
    engine_cpu: float | None = None
    """The part of all logical processors that the engine's process took."""
    gpu: float | None = None
    """The busiest part of the busiest GPU, as far as the engine's process used it."""
    npu: float | None = None
    """The busiest NPU: as far as the engine's process used it, or by all programs where the system tells only that."""
    memory_bytes: int | None = None
    """Resident main memory of the engine's process, mapped files included."""
    device_memory_bytes: int | None = None
    """Memory of GPUs and NPUs that the engine's process holds."""


class Mean:
    """The mean of activities that follow each other, weighted by their times; of memory, the largest."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._sums: dict[str, float] = {}
        self._times: dict[str, float] = {}
        self._memory: dict[str, int] = {}

    def add(self, activity: Activity) -> None:
        """Take an activity."""
        self._seconds += activity.seconds
        for name in SHARES:
            share: float | None = getattr(activity, name)
            if share is not None:
                self._sums[name] = self._sums.get(name, 0.0) + share * activity.seconds
                self._times[name] = self._times.get(name, 0.0) + activity.seconds
        for name in ("memory_bytes", "device_memory_bytes"):
            memory: int | None = getattr(activity, name)
            if memory is not None:
                self._memory[name] = max(memory, self._memory.get(name, 0))

    @property
    def result(self) -> Activity:
        """The mean so far."""
        shares: Mapping[str, Any] = {name: self._sums[name] / time for name, time in self._times.items() if time > 0}
        return Activity(seconds=self._seconds, **shares, **self._memory)

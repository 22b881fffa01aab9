"""What all running engines of a store, and this machine, do at one time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from .meter import Meter
from .npus import Npu, npus
from .running import RunningEngine, running_engines
from .values import Activity


@frozen(kw_only=True)
class NpuActivity:
    """What an NPU does for all programs."""

    name: str
    """The name of its device node, such as ``accel0``."""
    busy: float | None
    """The share of the time for which it had work, 0 to 1; None at the first look."""
    memory_bytes: int | None
    frequency_mhz: int | None


@frozen(kw_only=True)
class ActiveEngine:
    """A running engine, and what it does."""

    engine: RunningEngine
    activity: Activity


@frozen(kw_only=True)
class Overview:
    """What the machine and the running engines do."""

    machine: Activity
    memory_bytes: int
    """The machine's main memory."""
    memory_used_bytes: int
    """The part of it that is not available to programs."""
    npus: tuple[NpuActivity, ...]
    engines: tuple[ActiveEngine, ...]
    """The oldest first."""


class Observer:
    """Looks again and again. Each look is about the time since the one before; the first one tells no shares.

    Args:
        root: the root of the file system, for tests.
        clock: the time in seconds, for tests.
    """

    def __init__(self, *, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._clock = root, clock
        self._machine = self._meter(None)
        self._meters: dict[tuple[int, float], Meter] = {}
        self._npus: dict[str, tuple[float, Npu]] = {}

    def _meter(self, process: int | None) -> Meter:
        return Meter(process, root=self._root, clock=self._clock)

    def look(self) -> Overview:
        """Return what the machine and the engines have done since the last call."""
        import psutil  # start-up: needed only here

        engines = running_engines()
        keys = [(engine.process, engine.process_started) for engine in engines]
        self._meters = {key: self._meters.get(key) or self._meter(key[0]) for key in keys}
        memory = psutil.virtual_memory()
        return Overview(
            machine=self._machine.read(),
            memory_bytes=memory.total,
            memory_used_bytes=memory.total - memory.available,
            npus=tuple(self._look_at_npus()),
            engines=tuple(
                ActiveEngine(engine=engine, activity=self._meters[key].read())
                for engine, key in zip(engines, keys, strict=True)
            ),
        )

    def _look_at_npus(self) -> Iterator[NpuActivity]:
        before, self._npus = self._npus, {}
        for npu in npus(self._root):
            now = self._clock()
            self._npus[npu.name] = now, npu
            busy = None
            if npu.name in before and now > before[npu.name][0]:
                start, last = before[npu.name]
                busy = min(1.0, max(0.0, (npu.busy_s - last.busy_s) / (now - start)))
            yield NpuActivity(name=npu.name, busy=busy, memory_bytes=npu.memory_bytes, frequency_mhz=npu.frequency_mhz)

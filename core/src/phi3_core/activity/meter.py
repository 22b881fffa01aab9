"""Read how busy the processors of this machine are, and what one process does on them."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from attrs import evolve

from . import drm
from .counts import Count, Counts, Key, share
from .gpu_engines import GpuEngines, used
from .npus import npus
from .values import Activity

PERIOD_S = 1.0
"""How often to read: drivers and Windows ask for no more."""
_SHORTEST_S = 0.1
"""Processors' times come in steps of 10 ms, so that shorter times tell nothing."""


class _Reading(NamedTuple):
    time: float
    busy: float
    total: float
    """Seconds of all logical processors: busy, and altogether."""
    engine: float | None
    """Seconds of processors that the process took."""
    devices: Counts


class Meter:
    """Measures what processors do from its creation on, or from the last reading.

    Args:
        process: the id of an engine's process; None for the machine alone.
        root: the root of the file system, for tests.
        clock: the time in seconds, for tests.
    """

    def __init__(
        self, process: int | None, *, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.process = process
        self._root, self._clock = root, clock
        self._clients: tuple[drm.Fields, ...] = ()
        self._windows: GpuEngines | None = None
        if sys.platform == "win32":
            with contextlib.suppress(OSError, AttributeError):
                self._windows = GpuEngines()
        self._last = self._take()

    def read(self) -> Activity:
        """Return the activity since the last call. Shares over less than a tenth of a second are not told."""
        before, self._last = self._last, self._take()
        now = self._last
        seconds = now.time - before.time
        found = Activity(seconds=seconds, memory_bytes=self._memory(), device_memory_bytes=drm.memory(self._clients))
        if seconds < _SHORTEST_S:
            return found
        total = now.total - before.total
        engine = None
        if now.engine is not None and before.engine is not None and total > 0:
            engine = _clipped((now.engine - before.engine) / total)
        gpu, npu = (share(kind, before.devices, now.devices) for kind in ("gpu", "npu"))
        if self._windows is not None:
            gpu, npu = used(self._windows.read(), self.process)
        cpu = _clipped((now.busy - before.busy) / total) if total > 0 else None
        return evolve(found, cpu=cpu, engine_cpu=engine, gpu=gpu, npu=npu)

    def _take(self) -> _Reading:
        import psutil  # start-up: needed only where figures are shown

        now = self._clock()
        busy, total = _processors()
        devices = {Key("npu", npu.name): Count(npu.busy_s, now) for npu in npus(self._root)}
        engine = None
        if self.process is not None:
            with contextlib.suppress(psutil.Error):  # it has ended
                own = psutil.Process(self.process).cpu_times()
                engine = own.user + own.system
            self._clients = drm.clients(self.process, self._root)
            own_counts = dict(drm.counts(self._clients, now))
            if any(key.kind == "npu" for key in own_counts):  # tells more than the driver's counter of all programs
                devices = {}
            devices |= own_counts
        return _Reading(now, busy, total, engine, devices)

    def _memory(self) -> int | None:
        import psutil  # start-up: as above

        if self.process is not None:
            with contextlib.suppress(psutil.Error):  # it has ended
                return int(psutil.Process(self.process).memory_info().rss)
        return None


def _processors() -> tuple[float, float]:
    """Return the seconds of all logical processors: busy, and altogether; zeros if the system does not tell."""
    import psutil  # start-up: as above

    try:
        times = psutil.cpu_times()
    except (OSError, RuntimeError, ValueError, IndexError):  # a /proc that is not the kernel's
        return 0.0, 0.0
    # On Linux, guests' times are part of the user's.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - times.idle - getattr(times, "iowait", 0.0), total


def _clipped(part: float) -> float:
    return min(1.0, max(0.0, part))

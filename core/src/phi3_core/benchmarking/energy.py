"""The energy that the system's counters tell of, on Linux: processors (RAPL) and discrete GPUs (hwmon).

RAPL's counters are readable by root only on most systems. They cover the whole package: cores, integrated GPU, NPU, and
what else runs on them. https://docs.kernel.org/power/powercap/powercap.html, https://docs.kernel.org/hwmon/sysfs-interface.html
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

ROOT = Path("/sys")


@frozen(kw_only=True)
class Counter:
    """A counter of energy in microjoules, which begins again from 0 at its range."""

    file: Path
    range: int
    """0 if it is not known."""

    def read(self) -> int | None:
        """Return the count; None if it cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            return int(self.file.read_text(encoding="ascii"))
        return None


def counters(kind: str, root: Path = ROOT) -> tuple[Counter, ...]:
    """Return the readable counters whose energy a device of a kind takes; none if they leave it out.

    Args:
        kind: the device's kind.
        root: where sysfs is, for tests.
    """
    packages = [counter for counter in _packages(root) if counter.read() is not None]
    if kind != "dgpu":
        return tuple(packages)
    cards = [counter for counter in _cards(root) if counter.read() is not None]
    return (*packages, *cards) if cards else ()


def _packages(root: Path) -> Iterator[Counter]:
    for zone in sorted((root / "class" / "powercap").glob("*-rapl:*")):
        with contextlib.suppress(OSError, ValueError):
            if zone.name.count(":") == 1 and (zone / "name").read_text(encoding="ascii").startswith("package"):
                largest = int((zone / "max_energy_range_uj").read_text(encoding="ascii"))
                yield Counter(file=zone / "energy_uj", range=largest)


def _cards(root: Path) -> Iterator[Counter]:
    for file in sorted((root / "class" / "drm").glob("card*/device/hwmon/hwmon*/energy1_input")):
        yield Counter(file=file, range=0)


class EnergyMeter:
    """Measures the energy from its creation on.

    Args:
        counters: what is read.
    """

    def __init__(self, counters: tuple[Counter, ...]) -> None:
        self._counters = counters
        self._starts = [counter.read() for counter in counters]

    def joules(self) -> float | None:
        """Return the energy in joules; None if it is not told."""
        total = 0
        for counter, start in zip(self._counters, self._starts, strict=True):
            end = counter.read()
            if start is None or end is None:
                return None
            total += end - start + (counter.range if end < start else 0)
        return total / 1e6 if total > 0 else None

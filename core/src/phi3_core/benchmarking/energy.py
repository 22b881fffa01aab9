"""The energy that the system's counters tell of, on Linux: processors (RAPL) and discrete GPUs (hwmon).

RAPL's counters are readable by root only on most systems. They cover the whole package: cores, integrated GPU, NPU, and
what else runs on them. The zones below a package are parts of it, and ``psys`` is the whole machine with its packages.
Drivers of NPUs have no counter of energy. https://docs.kernel.org/power/powercap/powercap.html,
https://docs.kernel.org/hwmon/sysfs-interface.html and, in the kernel's sources,
``Documentation/ABI/testing/sysfs-driver-intel-{i915,xe}-hwmon`` describe the files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

ROOT = Path("/sys")
# Beside the device's own, i915 has one "i915_gtN" for each part of it.
_CARDS = {"i915", "xe"}


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
    packages = tuple(_packages(root))
    if any(counter.read() is None for counter in packages):  # one of several would be a part of the energy
        packages = ()
    if kind != "dgpu":
        return packages
    cards = [counter for counter in _cards(root) if counter.read() is not None]
    return (*packages, *cards) if cards else ()


def _packages(root: Path) -> Iterator[Counter]:
    for zone in sorted((root / "class" / "powercap").glob("*-rapl:*")):
        with contextlib.suppress(OSError, ValueError):
            if zone.name.count(":") == 1 and (zone / "name").read_text(encoding="ascii").startswith("package"):
                largest = int((zone / "max_energy_range_uj").read_text(encoding="ascii"))
                yield Counter(file=zone / "energy_uj", range=largest)


def _cards(root: Path) -> Iterator[Counter]:
    for folder in sorted((root / "class" / "drm").glob("card*/device/hwmon/hwmon*")):
        with contextlib.suppress(OSError):
            if (folder / "name").read_text(encoding="ascii").strip() in _CARDS:
                # The card's, or its package's, which is a part of the card.
                found = [folder / f"energy{number}_input" for number in (1, 2)]
                yield from (Counter(file=file, range=0) for file in [each for each in found if each.exists()][:1])


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
            if start is None or end is None or (end < start and not counter.range):  # the driver began anew
                return None
            total += end - start + (counter.range if end < start else 0)
        return total / 1e6 if total > 0 else None

"""Intel's NPUs on Linux, as the driver ``intel_vpu`` tells of them in sysfs.

The files are those of ``drivers/accel/ivpu/ivpu_sysfs.c``: ``npu_busy_time_us`` since Linux 6.11, the others later. The
driver asks for no more than one reading a second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen


@frozen(kw_only=True)
class Npu:
    """An NPU's counters; None for what this version of the driver does not tell."""

    name: str
    """The name of its device node, such as ``accel0``."""
    busy_s: float
    """The seconds for which it has had work of any program."""
    memory_bytes: int | None = None
    """The memory that all programs hold on it, its firmware included."""
    frequency_mhz: int | None = None
    """0 while it is powered down."""


def npus(root: Path = Path("/")) -> Iterator[Npu]:
    """Yield the NPUs that tell for how long they have been busy.

    Args:
        root: the root of the file system, for tests.
    """
    for file in sorted((root / "sys/class/accel").glob("accel*/device/npu_busy_time_us")):
        if (busy_us := _number(file)) is not None:
            yield Npu(
                name=file.parent.parent.name,
                busy_s=busy_us / 1e6,
                memory_bytes=_number(file.with_name("npu_memory_utilization")),
                frequency_mhz=_number(file.with_name("npu_current_frequency_mhz")),
            )


def _number(file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text(encoding="ascii"))
    return None

"""What a process does on GPUs and NPUs, as Linux' drivers tell for each of its open device files.

https://docs.kernel.org/gpu/drm-usage-stats.html describes the keys. xe counts cycles, of which there are
``drm-total-cycles-…`` at the same time; the others count nanoseconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from .counts import Count, Key

_NPU_DRIVERS = {"intel_vpu", "amdxdna", "amdxdna_accel_driver"}
_BYTES = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_ENGINE, _CAPACITY, _CYCLES, _TOTAL_CYCLES = "drm-engine-", "drm-engine-capacity-", "drm-cycles-", "drm-total-cycles-"

Fields = Mapping[str, str]


def clients(process: int, root: Path = Path("/")) -> tuple[Fields, ...]:
    """Return the fields of each client of a driver that a process has. Its files that are one client count once.

    Args:
        process: the process's id.
        root: the root of the file system, for tests.
    """
    found: dict[tuple[str, str], Fields] = {}
    with contextlib.suppress(OSError):  # the process has ended
        for file in sorted((root / "proc" / str(process) / "fdinfo").iterdir(), key=lambda path: path.name):
            with contextlib.suppress(OSError):  # the file was closed meanwhile
                fields = _fields(file.read_text(encoding="utf-8", errors="replace"))
                if "drm-driver" in fields:
                    found.setdefault((_device(fields), fields.get("drm-client-id", file.name)), fields)
    return tuple(found.values())


def _fields(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def _device(fields: Fields) -> str:
    return fields.get("drm-pdev") or fields["drm-driver"]


def counts(found: tuple[Fields, ...], now: float) -> Iterator[tuple[Key, Count]]:
    """Yield the counters of clients.

    Args:
        found: the fields of each client.
        now: the time in seconds, from any start.
    """
    for number, fields in enumerate(found):
        kind = "npu" if fields["drm-driver"] in _NPU_DRIVERS else "gpu"
        client = fields.get("drm-client-id", str(number))
        for name, text in fields.items():
            if name.startswith(_ENGINE) and not name.startswith(_CAPACITY):
                part, total = name.removeprefix(_ENGINE), 1e9 * now
            elif name.startswith(_CYCLES) and f"{_TOTAL_CYCLES}{name.removeprefix(_CYCLES)}" in fields:
                part = name.removeprefix(_CYCLES)
                total = _number(fields[f"{_TOTAL_CYCLES}{part}"])
            else:
                continue
            several = max(1.0, _number(fields.get(f"{_CAPACITY}{part}", "1")))
            yield Key(kind, _device(fields), part, client), Count(_number(text), total * several)


def memory(found: tuple[Fields, ...]) -> int | None:
    """Return the bytes that clients hold on their devices, or in main memory for them; None if no driver tells."""
    total = None
    for fields in found:
        for prefix in ("drm-resident-", "drm-memory-"):  # the second is an older name
            sizes = [_size(text) for name, text in fields.items() if name.startswith(prefix)]
            if sizes:
                total = (total or 0) + sum(sizes)
                break
    return total


def _size(text: str) -> int:
    number, _, unit = text.partition(" ")
    return int(_number(number)) * _BYTES.get(unit.strip(), 0)


def _number(text: str) -> float:
    with contextlib.suppress(ValueError, IndexError):
        return float(text.split(maxsplit=1)[0])
    return 0.0

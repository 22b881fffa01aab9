"""Folders that stand for /sys and /proc of machines with GPUs and NPUs, of which the development machine has none.

The files of NPUs are laid out as ``drivers/accel/ivpu/ivpu_sysfs.c`` writes them; the fields of clients are those of
``Documentation/gpu/drm-usage-stats.rst``, in the form of each driver's own documentation in the kernel's sources.
"""

from __future__ import annotations

from pathlib import Path

FILE = "pos:\t0\nflags:\t02100002\nmnt_id:\t26\nino:\t685\n"
"""What the kernel says of every open file."""


def write(root: Path, files: dict[str, object]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n", encoding="ascii")


def npu(number: int, busy_us: int, **others: int) -> dict[str, object]:
    folder = f"sys/class/accel/accel{number}/device"
    return {f"{folder}/npu_busy_time_us": busy_us, **{f"{folder}/{name}": value for name, value in others.items()}}


def files(process: int, *texts: str) -> dict[str, object]:
    """The open files of a process: a terminal, and one for each of ``texts``."""
    return {f"proc/{process}/fdinfo/{number}": FILE + text for number, text in enumerate(["", *texts])}


def client(driver: str, number: int = 7, device: str = "0000:00:02.0", **fields: object) -> str:
    """What a driver says of a client. ``_`` in names of ``fields`` is written as ``-``."""
    lines = {"drm-driver": driver, "drm-client-id": number, "drm-pdev": device}
    return "".join(
        f"{name}:\t{value}\n"
        for name, value in {
            **lines,
            **{f"drm-{name.replace('_', '-')}": value for name, value in fields.items()},
        }.items()
    )


def i915(render_ns: int, compute_ns: int = 0, number: int = 7) -> str:
    return client(
        "i915",
        number,
        total_system0="12 MiB",
        resident_system0="8 MiB",
        engine_render=f"{render_ns} ns",
        engine_copy="0 ns",
        engine_video="0 ns",
        engine_capacity_video=2,
        engine_compute=f"{compute_ns} ns",
    )


def xe(compute: int, total: int, number: int = 3) -> str:
    return client(
        "xe",
        number,
        "0000:03:00.0",
        total_vram0="23992 KiB",
        resident_vram0="23992 KiB",
        resident_gtt="192 KiB",
        cycles_rcs=0,
        total_cycles_rcs=total,
        cycles_ccs=compute,
        total_cycles_ccs=total,
        engine_capacity_ccs=4,
    )

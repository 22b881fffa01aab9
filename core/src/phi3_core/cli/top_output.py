"""What ``phi3 top`` prints: a line about the machine, and a table of the engines that fits the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from phi3_core.activity.overview import ActiveEngine, Overview
from phi3_core.figures.values import age
from phi3_core.units import format_bytes
from phi3_core.values import to_plain

from .activity import percent
from .entries import date
from .output import UNBOUNDED, printable

NONE = "no engine is running; phi3 run, phi3 chat and programs that use phi3_core start one"


class _Column(NamedTuple):
    heading: str
    cell: Callable[[ActiveEngine], object]
    rank: int
    """Which columns are left out first where there is little room: those with the largest."""
    right: bool = True


def _rate(row: ActiveEngine) -> str:
    return "" if row.engine.tokens_per_s is None else f"{row.engine.tokens_per_s:.1f}"


def _answers(row: ActiveEngine) -> str:
    waiting = f" + {row.engine.waiting}" if row.engine.waiting else ""
    return f"{row.engine.running}{waiting}"


_COLUMNS = (
    _Column("process", lambda row: row.engine.process, 2),
    _Column("model", lambda row: row.engine.model, 0, right=False),
    _Column("device", lambda row: row.engine.device, 0, right=False),
    _Column("precision", lambda row: row.engine.precision, 5, right=False),
    _Column("state", lambda row: row.engine.state, 1, right=False),
    _Column("answers", _answers, 6),
    _Column("tokens/s", _rate, 1),
    _Column("CPU", lambda row: percent(row.activity.engine_cpu), 3),
    _Column("GPU", lambda row: percent(row.activity.gpu), 3),
    _Column("NPU", lambda row: percent(row.activity.npu), 3),
    _Column("memory", lambda row: format_bytes(row.activity.memory_bytes), 4),
    _Column("on the device", lambda row: format_bytes(row.activity.device_memory_bytes) or "-", 7),
    _Column("loaded", lambda row: age(max(0.0, time.time() - row.engine.since)), 8, right=False),
)


def machine(overview: Overview) -> str:
    """Return what the machine does, in one line."""
    used, total = overview.memory_used_bytes, overview.memory_bytes
    parts = [f"CPU {percent(overview.machine.cpu)}", f"memory {format_bytes(used)} of {format_bytes(total)}"]
    if overview.machine.gpu is not None:
        parts.append(f"GPU {percent(overview.machine.gpu)}")
    for npu in overview.npus:
        details = [f"{npu.frequency_mhz} MHz"] if npu.frequency_mhz is not None else []
        details += [format_bytes(npu.memory_bytes)] if npu.memory_bytes is not None else []
        parts.append(f"NPU {npu.name} {percent(npu.busy)}" + (f" ({', '.join(details)})" if details else ""))
    if not overview.npus and overview.machine.npu is not None:
        parts.append(f"NPU {percent(overview.machine.npu)}")
    return ", ".join(parts)


def table(rows: Sequence[ActiveEngine], console: Console, width: int) -> Table:
    """Return the table of the engines, without the columns that there is no room for."""
    columns: Sequence[_Column] = _COLUMNS
    while True:
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for column in columns:
            made.add_column(column.heading, justify="right" if column.right else "left", overflow="fold")
        for row in rows:
            made.add_row(*(Text(printable(column.cell(row))) for column in columns))
        last = max(column.rank for column in columns)
        needed = console.measure(made, options=console.options.update(width=UNBOUNDED)).maximum
        if needed <= width or last == 0:
            return made
        columns = [column for column in columns if column.rank < last]


def screen(overview: Overview, console: Console) -> Group:
    """Return what fills the terminal."""
    engines = table(overview.engines, console, console.width) if overview.engines else Text(NONE)
    return Group(Text(machine(overview)), engines, Text("Ctrl-C ends this"))


def print_overview(overview: Overview, console: Console, width: int) -> None:
    """Print the line and the table to stdout, once."""
    if not overview.engines:
        print(NONE)
        return
    engines = table(overview.engines, console, width)
    if width >= UNBOUNDED:  # no terminal: each engine is one line
        console.width = console.measure(engines, options=console.options.update(width=UNBOUNDED)).maximum
    print(machine(overview))
    console.print(engines)


def document(overview: Overview) -> dict[str, Any]:
    """Return the JSON document."""
    return {
        "seconds": overview.machine.seconds,
        "machine": {
            "cpu": overview.machine.cpu,
            "memory_bytes": overview.memory_bytes,
            "memory_used_bytes": overview.memory_used_bytes,
            "npus": to_plain(overview.npus),
        },
        "engines": [_engine(row) for row in overview.engines],
    }


def _engine(row: ActiveEngine) -> dict[str, Any]:
    facts = to_plain(row.engine)
    for name in ("process_started", "place"):  # for telling processes apart only
        del facts[name]
    activity = to_plain(row.activity)
    del activity["seconds"], activity["cpu"]  # the machine's
    return {**facts, "since": date(row.engine.since), **activity}

"""What ``phi3 bench`` prints: a table, a chart of bars, and the comparison with an earlier report."""

from __future__ import annotations

import sys
from typing import Any

from phi3_core.benchmarking.chart import panels
from phi3_core.benchmarking.compare import compare, differences
from phi3_core.benchmarking.results import Report, Result, Spread, TaskResult
from phi3_core.units import format_bytes
from phi3_core.values import to_plain

from . import output

_WIDEST_BAR, _NARROWEST_BAR = 40, 10
_FIGURES = {"first_token_s": "first token", "decode_tokens_per_s": "tokens/s"}


def document(report: Report, before: Report | None) -> dict[str, Any]:
    """Return the JSON document of a report, and of its comparison with an earlier one if there is one."""
    content: dict[str, Any] = to_plain(report)
    if before is None:
        return content
    return {**content, "changes": to_plain(compare(before, report)), "differences": differences(before, report)}


def print_report(report: Report) -> None:
    """Print a table of what was measured, the chart, and a line for each device that was not measured to the end."""
    measured = [result for result in report.results if result.tasks]
    print(f"{report.model}, medians of {report.repeats}")
    if measured:
        output.print_table(
            ("device", "precision", "task", "tokens", "at once", "first token", "tokens/s", "J/token"),
            [_row(result, task) for result in measured for task in result.tasks],
        )
        output.print_table(
            ("device", "precision", "loaded in", "peak memory", "context", "answers at once"),
            [
                (
                    result.device,
                    result.precision,
                    "" if result.load_s is None else f"{result.load_s:.1f} s",
                    format_bytes(result.peak_memory_bytes) or "not told",
                    result.context_length,
                    result.max_concurrency,
                )
                for result in measured
            ],
        )
        _print_chart(report)
    for result in report.results:
        if result.error:
            what = "not measured to the end" if result.tasks else "not measured"
            output.print_line(f"{what}: {result.device} {result.precision}: {result.error}")


def _row(result: Result, task: TaskResult) -> tuple[object, ...]:
    return (
        result.device,
        result.precision,
        task.task,
        f"{task.prompt_tokens} + {task.new_tokens}{' (clipped to the context)' if task.clipped else ''}",
        task.at_once,
        _spread(task.first_token_s, " s"),
        _spread(task.decode_tokens_per_s, ""),
        "not told" if task.joules_per_token is None else f"{task.joules_per_token:.3g}",
    )


def _spread(found: Spread, unit: str) -> str:
    if found.runs == 1:
        return f"{found.median:.3g}{unit}"
    return f"{found.median:.3g}{unit} ({found.least:.3g} to {found.most:.3g})"


def _print_chart(report: Report) -> None:
    """Print bars that are as wide as the terminal has room; on a narrow one, each below its label."""
    columns = output.columns(sys.stdout) if sys.stdout.isatty() else output.UNBOUNDED
    full, dot = ("█", "·") if (sys.stdout.encoding or "").lower().startswith("utf") else ("#", "-")
    for title, bars in panels(report):
        most = max((bar.value for bar in bars), default=0.0) or 1.0
        labels = [output.printable(bar.label.replace("·", dot)) for bar in bars]
        widest, numbers = max(map(len, labels)), max(len(bar.text) for bar in bars)
        room = columns - widest - numbers - 6  # the margin, the gaps, and the last column, where some terminals wrap
        beside = room >= _NARROWEST_BAR
        room = min(_WIDEST_BAR, room if beside else max(1, columns - numbers - 6))
        print(title)
        for bar, label in zip(bars, labels, strict=True):
            drawn = full * max(1, round(room * bar.value / most))
            print(f"  {label.ljust(widest)}  {drawn} {bar.text}" if beside else f"  {label}\n    {drawn} {bar.text}")
        print()


def print_changes(before: Report, now: Report) -> None:
    """Print the comparison with an earlier report, and what else differs between the two."""
    changes = compare(before, now)
    for each in differences(before, now):
        output.print_line(f"not alike: {each}")
    if not changes:
        print("nothing was measured alike in the earlier report")
        return
    output.print_table(
        ("device", "precision", "task", "at once", "figure", "before", "now", "ratio", ""),
        [
            (
                change.device,
                change.precision,
                change.task,
                change.at_once,
                _FIGURES[change.figure],
                f"{change.before:.3g}",
                f"{change.now:.3g}",
                f"{change.ratio:.2f}",
                change.verdict,
            )
            for change in changes
        ],
    )

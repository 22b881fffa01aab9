"""A chart of a report as SVG: a bar of tokens per second, and one of the time to the first token, for each device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape

from attrs import frozen

from .results import Report, TaskResult

_WIDTH, _LABELS, _ROW, _BAR, _TOP = 860, 330, 20, 14, 64
_COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e", "#a6761d", "#666666")


@frozen(kw_only=True)
class Bar:
    """One figure of one device."""

    label: str
    group: str
    """The device and precision, which have a colour."""
    value: float
    text: str


def bars(report: Report, value: Callable[[TaskResult], float], unit: str) -> tuple[Bar, ...]:
    """Return a bar for each device, precision and task, grouped by task."""
    tasks = dict.fromkeys((each.task, each.at_once) for result in report.results for each in result.tasks)
    found = []
    for task, at_once in tasks:
        for result in report.results:
            for each in result.tasks:
                if (each.task, each.at_once) == (task, at_once):
                    group = f"{result.device} {result.precision}"
                    label = f"{task}{f', {at_once} at once' if at_once > 1 else ''}"
                    text = f"{value(each):.3g} {unit}"
                    found.append(Bar(label=f"{label} · {group}", group=group, value=value(each), text=text))
    return tuple(found)


def panels(report: Report) -> tuple[tuple[str, tuple[Bar, ...]], ...]:
    """Return the two parts of the chart, with their titles."""
    speed = bars(report, lambda task: task.decode_tokens_per_s.median, "tokens/s")
    first = bars(report, lambda task: task.first_token_s.median, "s")
    return ("tokens per second, more is better", speed), ("seconds to the first token, less is better", first)


def svg(report: Report) -> str:
    """Return the chart as an SVG document."""
    drawn = panels(report)
    rows = sum(len(found) for _, found in drawn)
    height = _TOP + rows * _ROW + len(drawn) * 2 * _ROW + 8
    groups = list(dict.fromkeys(bar.group for _, found in drawn for bar in found))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(12, 24, f"phi3 bench: {report.model}", size=16),
        _text(12, 44, f"phi3-core {report.phi3_core}, {report.time}, medians of {report.repeats}", colour="#555555"),
    ]
    y = _TOP
    for title, found in drawn:
        y += _ROW
        lines.append(_text(12, y, title, size=13))
        y += _ROW // 2
        lines += _panel(found, groups, y)
        y += len(found) * _ROW + _ROW // 2
    return "\n".join([*lines, "</svg>", ""])


def _panel(found: Sequence[Bar], groups: Sequence[str], y: int) -> list[str]:
    most = max((bar.value for bar in found), default=0.0) or 1.0
    room = _WIDTH - _LABELS - 100
    lines = []
    for bar in found:
        width, colour = max(1.0, room * bar.value / most), _COLOURS[groups.index(bar.group) % len(_COLOURS)]
        lines += [
            _text(12, y + _BAR - 3, bar.label, size=11),
            f'<rect x="{_LABELS}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>',
            _text(_LABELS + width + 6, y + _BAR - 3, bar.text, size=11),
        ]
        y += _ROW
    return lines


def _text(x: float, y: float, words: str, *, size: int = 12, colour: str = "#111111") -> str:
    return f'<text x="{x:.1f}" y="{y}" font-size="{size}" fill="{colour}">{escape(words)}</text>'

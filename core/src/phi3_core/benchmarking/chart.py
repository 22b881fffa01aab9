"""A chart of a report: a bar of tokens per second, and one of the time to the first token, for each device.

It is laid out once, and written as SVG, or drawn as PNG by Pillow (the extra ``chart``).
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape

from attrs import frozen

from .results import Report, TaskResult

_WIDTH, _LABELS, _ROW, _BAR, _TOP = 860, 330, 20, 14, 64
_COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e", "#a6761d", "#666666")


SUFFIXES = (".svg", ".png")
"""What the chart can be written as."""
_SCALE = 2  # pixels of a PNG for a unit of the layout: screens show more than one


@frozen(kw_only=True)
class Text:
    """Text of a drawing, from its left end on its baseline."""

    x: float
    y: float
    words: str
    size: int = 12
    colour: str = "#111111"


@frozen(kw_only=True)
class Box:
    """A filled rectangle of a drawing."""

    x: float
    y: float
    width: float
    height: float
    colour: str


@frozen(kw_only=True)
class Drawing:
    """A chart as it is laid out."""

    width: int
    height: int
    shapes: tuple[Text | Box, ...]


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


def layout(report: Report) -> Drawing:
    """Return the chart as shapes."""
    drawn = panels(report)
    rows = sum(len(found) for _, found in drawn)
    height = _TOP + rows * _ROW + len(drawn) * 2 * _ROW + 8
    groups = list(dict.fromkeys(bar.group for _, found in drawn for bar in found))
    facts = f"phi3-core {report.phi3_core}, {report.time}, medians of {report.repeats}"
    shapes: list[Text | Box] = [
        Box(x=0, y=0, width=_WIDTH, height=height, colour="#ffffff"),
        Text(x=12, y=24, words=f"phi3 bench: {report.model}", size=16),
        Text(x=12, y=44, words=facts, colour="#555555"),
    ]
    y = _TOP
    for title, found in drawn:
        y += _ROW
        shapes.append(Text(x=12, y=y, words=title, size=13))
        y += _ROW // 2
        shapes += _panel(found, groups, y)
        y += len(found) * _ROW + _ROW // 2
    return Drawing(width=_WIDTH, height=height, shapes=tuple(shapes))


def _panel(found: Sequence[Bar], groups: Sequence[str], y: int) -> list[Text | Box]:
    most = max((bar.value for bar in found), default=0.0) or 1.0
    room = _WIDTH - _LABELS - 100
    shapes: list[Text | Box] = []
    for bar in found:
        width, colour = max(1.0, room * bar.value / most), _COLOURS[groups.index(bar.group) % len(_COLOURS)]
        shapes += [
            Text(x=12, y=y + _BAR - 3, words=bar.label, size=11),
            Box(x=_LABELS, y=y, width=width, height=_BAR, colour=colour),
            Text(x=_LABELS + width + 6, y=y + _BAR - 3, words=bar.text, size=11),
        ]
        y += _ROW
    return shapes


def svg(report: Report) -> str:
    """Return the chart as an SVG document."""
    drawing = layout(report)
    size = f'width="{drawing.width}" height="{drawing.height}"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">']
    lines += [_element(shape) for shape in drawing.shapes]
    return "\n".join([*lines, "</svg>", ""])


def _element(shape: Text | Box) -> str:
    if isinstance(shape, Box):
        place = f'x="{shape.x:g}" y="{shape.y:g}" width="{shape.width:.1f}" height="{shape.height:g}"'
        return f'<rect {place} fill="{shape.colour}"/>'
    place = f'x="{shape.x:.1f}" y="{shape.y:g}" font-size="{shape.size}"'
    return f'<text {place} fill="{shape.colour}">{escape(shape.words)}</text>'


def can_draw_png() -> bool:
    """Return whether what draws a PNG is installed."""
    return importlib.util.find_spec("PIL") is not None


def png(report: Report) -> bytes:
    """Return the chart as a PNG file.

    Raises:
        ImportError: Pillow is not installed.
    """
    from PIL import Image, ImageDraw, ImageFont  # start-up: an extra, needed only for PNG

    drawing = layout(report)
    image = Image.new("RGB", (drawing.width * _SCALE, drawing.height * _SCALE))
    draw = ImageDraw.Draw(image)
    for shape in drawing.shapes:
        left, top = shape.x * _SCALE, shape.y * _SCALE
        if isinstance(shape, Box):
            corner = left + shape.width * _SCALE - 1, top + shape.height * _SCALE - 1
            draw.rectangle((left, top, *corner), fill=shape.colour)
        else:
            font = ImageFont.load_default(shape.size * _SCALE)
            draw.text((left, top), shape.words, fill=shape.colour, font=font, anchor="ls")
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()

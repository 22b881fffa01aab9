"""Terminal output: answers to stdout, everything else to stderr."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from phi3_core.errors import Phi3Error
from phi3_core.units import format_bytes
from phi3_core.values import to_plain

from . import streams

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger("phi3_core")

SHOWN_LINES = 8
"""Lines of a worker that are shown with an error."""
NARROW = 72
"""The width of a terminal, in columns, below which tables are not folded to fit."""
UNBOUNDED = 1_000_000
"""Columns that no table has."""
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
"""What terminals take as a command: colours, moves of the cursor, titles of windows."""
_BREAKS = re.compile(r"[\t-\r\x1c-\x1e\x85\u2028\u2029]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that change the direction of what follows."""


def printable(text: object) -> str:
    """Return a text on one line, without what a terminal would obey: backends name devices and reasons."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", _BREAKS.sub(" ", _SEQUENCE.sub("", str(text))))


def print_line(text: object) -> None:
    """Print a line to stdout, in which a backend may have a say."""
    print(printable(text))


class Handler(logging.Handler):
    """Prints log messages to stderr, after clearing the progress line."""

    progress: Progress | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log message."""
        if self.progress is not None:
            self.progress.clear()
        streams.tell(f"phi3: {printable(record.getMessage())}")


def prepare(*, quiet: bool) -> None:
    """Print the log to stderr, and encode output as UTF-8 unless it goes to a terminal."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace") if stream.isatty() else reconfigure(encoding="utf-8", errors="replace")
    logger.handlers = [Handler(logging.INFO)]
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)


def print_error(error: Phi3Error, *, traceback: bool) -> None:
    """Print an error and its hint in one line, then the last lines that the worker printed, if any."""
    if traceback:
        _print_traceback(error)
    logger.error("%s", error)
    if len(error.last_lines) > SHOWN_LINES:
        logger.error("  | … (PHI3_SHOW_OUTPUT=1 shows all of it)")
    for line in error.last_lines[-SHOWN_LINES:]:
        logger.error("  | %s", line)


def print_unexpected(error: Exception, *, traceback: bool) -> None:
    """Print an error that is not a :class:`~phi3_core.errors.Phi3Error`."""
    if traceback:
        _print_traceback(error)
    hint = "" if traceback else " (run it again with --traceback to see where)"
    logger.error("unexpected %s: %s%s", type(error).__name__, error, hint)


def _print_traceback(error: BaseException) -> None:
    import traceback

    traceback.print_exception(type(error), error, error.__traceback__)


def print_json(content: object) -> None:
    """Print a JSON document to stdout."""
    print(json.dumps(_finite(to_plain(content)), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    """Replace infinities and NaN by None, since JSON does not have them."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def make_console() -> Console:
    """Return a console of Rich for stdout, which leaves the error of a closed pipe to the command."""
    import rich.console

    class _Console(rich.console.Console):
        def on_broken_pipe(self) -> None:  # Rich's own ends the process with an error
            raise  # noqa: PLE0704 - called where the error is handled

    return _Console(highlight=False)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to stdout, as wide as the terminal; without a terminal, each row is one line.

    On a terminal that is narrower than the table and than :data:`NARROW` columns, each cell gets a line.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    lines = [[printable(cell) for cell in row] for row in rows]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    console = make_console()
    full_width = console.measure(table, options=console.options.update(width=UNBOUNDED)).maximum
    if not sys.stdout.isatty():
        console.width = full_width
    if console.width >= min(NARROW, full_width):
        console.print(table)
        return
    for line in lines:
        for heading, cell in zip(headings, line, strict=True):
            if cell and not (heading and cell == "-"):
                print(f"{heading}: {cell}" if heading else cell)
        print()


def print_quality(report: Mapping[str, Any]) -> None:
    """Print a quality report as a table."""
    print_table(
        ("tokens", "perplexity", "of the reference", "mean KL", "99th percentile", "top-1 agreement"),
        [
            (
                report["tokens"],
                f"{report['perplexity']:.2f}",
                f"{report['perplexity_reference']:.2f}",
                f"{report['kl_mean']:.4f}",
                f"{report['kl_p99']:.4f}",
                f"{report['top1_agreement']:.1%}",
            )
        ],
    )


def columns(stream: TextIO) -> int:
    """Return the width of the terminal behind a stream; 80 if it tells none."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


class Progress:
    """Shows progress on stderr: a line updated in place on a terminal, else one line per long stage."""

    def __init__(self) -> None:
        self._stage = ""
        self._drawn = 0.0
        self._width = 0
        self._since, self._first = 0.0, 0
        for handler in logger.handlers:
            if isinstance(handler, Handler):
                handler.progress = self

    def __call__(self, stage: str, done: int | None = None, total: int | None = None) -> None:
        new, self._stage = stage != self._stage, stage
        if new:
            self._since, self._first = 0.0, 0
        if not logger.isEnabledFor(logging.INFO):
            return
        if not sys.stderr.isatty():
            if new and total:  # in a log, only stages with an amount
                logger.info("%s %s", stage, format_bytes(total) if total >= 10**6 else "…")
            return
        now = time.monotonic()
        if new or now - self._drawn > 0.1:
            self._drawn = now
            self._draw(f"phi3: {stage}{self._part(done, total, now)}")

    def _part(self, done: int | None, total: int | None, now: float) -> str:
        """Return the percentage; from 10 MB on also the size, speed and remaining time."""
        if done is None or not total:
            return " …"
        if done < self._first or not self._since:
            self._first, self._since = done, now
        text = f" {100 * done // total} %"
        if total < 10**7:
            return text
        text += f" of {format_bytes(total)}"
        if now - self._since < 1 or done == self._first:
            return text
        speed = (done - self._first) / (now - self._since)
        return f"{text}, {format_bytes(int(speed))}/s, {(total - done) / speed:.0f} s left"

    def _draw(self, text: str) -> None:
        # A line that is wrapped could not be overwritten.
        text = printable(text)[: columns(sys.stderr) - 1]
        streams.tell("\r" + text.ljust(self._width), end="")
        self._width = len(text)

    def clear(self) -> None:
        """Clear the progress line before other output."""
        if self._width:
            self._draw("")
            streams.tell("\r", end="")
            self._width = 0

"""A line at the bottom of the terminal, while an answer scrolls above it, with what processors do."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from phi3_core.activity.values import Activity

_FEWEST_ROWS = 6
_SAVE, _RESTORE, _UP, _CLEAR_LINE, _SCROLL_ALL = "\x1b7", "\x1b8", "\x1b[A", "\x1b[2K", "\x1b[r"


class LiveLine:
    """The last row of the terminal, in a ``with`` statement. All other rows scroll as usual.

    The terminal keeps the cursor of the answer, so nothing has to be drawn when text is printed. Without a terminal
    behind stderr, or if it is too low or does not understand this, nothing is ever written.

    Args:
        wanted: whether the line is to be shown.
    """

    def __init__(self, *, wanted: bool) -> None:
        self.shown = wanted and sys.stderr.isatty() and _understands_sequences()
        """Whether the line is shown."""
        self._size = (0, 0)

    def __enter__(self) -> Self:
        if self.shown:
            self._size = columns, rows = _size()
            self.shown = rows >= _FEWEST_ROWS and columns > 0
        if self.shown:
            # There is to be a row below the cursor. Where the rows that scroll are set, the cursor moves.
            _write(f"\n{_SAVE}{_scrolling(rows)}{_RESTORE}{_UP}")
        return self

    def show(self, activity: Activity) -> None:
        """Replace the line. May be called in any thread."""
        from .activity import words

        if not self.shown:
            return
        before, self._size = self._size, _size()
        columns, rows = self._size
        if rows < _FEWEST_ROWS:
            return
        resized = _scrolling(rows) if before != self._size else ""
        text = ", ".join(words(activity))[: max(0, columns - 1)]  # a line that is full would scroll
        _write(f"{_SAVE}{resized}{_at_row(rows)}{_CLEAR_LINE}{text}{_RESTORE}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.shown:
            self.shown = False
            _write(f"{_SAVE}{_SCROLL_ALL}{_at_row(self._size[1])}{_CLEAR_LINE}{_RESTORE}")


def _scrolling(rows: int) -> str:
    """Return what lets all rows but the last one scroll."""
    return f"\x1b[1;{rows - 1}r"


def _at_row(row: int) -> str:
    return f"\x1b[{row};1H"


def _size() -> tuple[int, int]:
    """Return the columns and rows of the terminal behind stderr."""
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        return 0, 0
    return size.columns, size.lines


def _understands_sequences() -> bool:
    if sys.platform != "win32":
        return os.environ.get("TERM", "") not in {"", "dumb"}
    from phi3_core import windows

    return windows.enable_terminal_sequences()


def _write(sequences: str) -> None:
    """Write at once, so that no text of an answer comes between."""
    sys.stderr.write(sequences)
    sys.stderr.flush()

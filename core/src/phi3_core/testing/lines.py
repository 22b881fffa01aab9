"""Texts that are shown in one line, in tables and messages."""

from __future__ import annotations

import unicodedata

_NOT_SHOWN = {"Cc", "Zl", "Zp"}
"""Categories of Unicode: control characters, also those that end a line or move a terminal's cursor."""


def check_line(text: str | None, what: str) -> None:
    """Check that a text has one line without control characters. None and an empty text have nothing to show.

    Raises:
        AssertionError: it has several lines, or a control character.
    """
    found = [f"U+{ord(each):04X}" for each in text or "" if unicodedata.category(each) in _NOT_SHOWN]
    assert not found, f"{what} {text!r} has {', '.join(found)}: give one line without control characters"

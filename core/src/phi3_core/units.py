"""Byte counts as they are displayed, in decimal units, and the bounds of times."""

from __future__ import annotations

LAST_MOMENT = 253_402_300_799
"""The end of the last year that a date can have, in seconds since the epoch."""


def format_bytes(count: float | None) -> str:
    """Format a number of bytes as ``B``, ``kB``, ``MB`` or ``GB`` (powers of 1000); None is an empty string."""
    if count is None:
        return ""
    value = float(count)
    for unit, decimals in (("B", 0), ("kB", 0), ("MB", 1)):
        if value < 999.5:
            return f"{value:.{decimals}f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"

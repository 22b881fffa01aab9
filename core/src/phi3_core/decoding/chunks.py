"""How a prompt is divided into the chunks in which it is read."""

from __future__ import annotations

from collections.abc import Sequence

Chunks = list[tuple[int, ...]]
"""Consecutive parts of a sequence of token ids."""


def chunks(ids: Sequence[int], *sizes: int) -> Chunks:
    """Divide ``ids`` into as many chunks of the first size as possible, then of the next. The last one may be shorter.

    Args:
        ids: at least one token id.
        sizes: numbers of tokens, in descending order.
    """
    found: Chunks = []
    start = 0
    for size in sizes:
        while len(ids) - start >= size:
            found.append(tuple(ids[start : start + size]))
            start += size
    return found + [tuple(ids[start:])] * (start < len(ids))

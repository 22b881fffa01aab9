"""Documents of the store with one value that makes no sense."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

WRONG: tuple[Any, ...] = (
    *(None, True, -1, 0, 1e308, 5e-324, float("inf"), float("nan"), 10**400, -(10**400)),
    *("x", "", [], {}, [[]], [1], ["x"], {"a": 1}, {"128": 10**400}, {"-1": 1.0}, {"9" * 5000: 1.0}),
)
"""What JSON can have, and Python reads from it: numbers that are no float, infinities, values of other kinds."""


def damaged(document: Any) -> Iterator[Any]:
    """Yield copies of a document, each with one of the wrong values in one place."""
    for place in _places(document):
        for wrong in WRONG:
            copied = copy.deepcopy(document)
            inner = copied
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = wrong
            yield copied


def _places(document: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        yield (*before, key)
        if isinstance(value, (dict, list)):
            yield from _places(value, (*before, key))

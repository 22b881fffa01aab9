"""Values in messages: short, on one line, whatever a plugin gives."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence


def shortened(value: object, longest: int = 60) -> str:
    """Return the representation of a plugin's value on one short line."""
    try:
        text = " ".join(reprlib.repr(value).split())  # does not write out what is large
    except Exception:  # as of an integer with more digits than Python converts
        text = f"a value of {type(value).__name__}"
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def described(value: object) -> str:
    """Return the type and the representation of a value, where its type is what is wrong."""
    kind = type(value).__name__
    article = "an" if kind[0] in "aeioAEIO" else "a"
    return "None" if value is None else f"{article} {kind} ({shortened(value)})"


def alternatives(words: Sequence[str]) -> str:
    """Return words as in a sentence: ``fp16, int8 or int4``."""
    return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))

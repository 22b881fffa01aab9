"""What ``config.json`` says of positions: how long the context is, and where longrope changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def context_length(config: Mapping[str, Any]) -> int | None:
    """Tokens of prompt and answer together, or None if it does not say."""
    length = config.get("max_position_embeddings")
    return length if type(length) is int and length > 0 else None


def turnover(config: Mapping[str, Any]) -> int | None:
    """The longest sequence that longrope's short factors serve, or None if there is one set of factors.

    In longer ones *all* positions turn by the long factors, so what a cache holds from before is wrong behind it. Both
    forms of the file are read: transformers 4's ``rope_scaling`` and transformers 5's ``rope_parameters``.
    """
    given = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(given, dict) or given.get("rope_type", given.get("type", "default")) == "default":
        return None
    context = context_length(config)
    original = config.get("original_max_position_embeddings") or given.get("original_max_position_embeddings", 4096)
    return original if type(original) is int and context is not None and 0 < original < context else None

"""Rotary position embedding (RoFormer, Su et al., 2021) with long-context scaling (LongRoPE, Ding et al., 2024).

Each pair of a head's dimensions is rotated by ``position * inverse frequency``. LongRoPE divides the inverse
frequencies by one of two lists of factors, short factors for sequences within the original context and long factors
beyond it, and multiplies cosine and sine by a constant. As in transformers, the length of the sequence decides:
beyond the original context the long factors apply to *all* positions, earlier ones included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from phi3_core.errors import ModelError

Floats = npt.NDArray[np.float32]


@frozen(kw_only=True, eq=False)
class Rotary:
    """Inverse frequencies, ``[size / 2]`` in radians per position, and the LongRoPE scaling."""

    short: Floats = field(repr=False)
    long: Floats | None = field(default=None, repr=False)
    """Used instead of ``short`` for sequences longer than ``original_context``; None without LongRoPE."""
    scale: float = 1.0
    """Factor of cosine and sine, for short and long sequences alike."""
    original_context: int
    """Context length of the original training, in tokens."""

    @property
    def size(self) -> int:
        """Number of dimensions of each head that are rotated; the rest stay unchanged."""
        return 2 * len(self.short)

    def frequencies(self, length: int) -> Floats:
        """Return the inverse frequencies for a sequence of ``length`` tokens, ``[size / 2]``."""
        return self.long if self.long is not None and length > self.original_context else self.short

    def tables(self, length: int) -> tuple[Floats, Floats]:
        """Return the scaled cosine and sine for every position of a sequence, each ``[length, size / 2]``."""
        angles = np.arange(length, dtype=np.float32)[:, None] * self.frequencies(length)
        scale = np.float32(self.scale)
        return np.cos(angles) * scale, np.sin(angles) * scale


def read_rotary(path: PurePath, config: Mapping[str, Any], *, head_size: int, context: int) -> Rotary:
    """Return the rotary embedding that a ``config.json`` describes.

    Args:
        path: the file, for error messages.
        config: its content, in the form of transformers 4 (``rope_scaling``) or 5 (``rope_parameters``).
        head_size: dimensions of each head.
        context: context length in tokens.

    Raises:
        ModelError: the settings are malformed, or the type of scaling is not supported.
    """
    given = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(given, dict):
        raise ModelError(f"{path}: rope_scaling is not an object")
    kind = _scaling_type(given)
    if kind not in {"default", "longrope", "su", "yarn"}:  # early Phi-3 releases call LongRoPE su or yarn
        raise ModelError(f"{path}: rotary embedding of type {kind!r} is unknown to the Phi-3 family")
    base = _number(path, given.get("rope_theta", config.get("rope_theta", 10_000.0)), "rope_theta")
    share = given.get("partial_rotary_factor", config.get("partial_rotary_factor") or 1.0)
    size = int(head_size * _number(path, share, "partial_rotary_factor"))
    if not 0 < size <= head_size or size % 2:
        raise ModelError(f"{path}: {size} rotary dimensions do not fit a head of {head_size}")
    turns = np.float32(base) ** (np.arange(0, size, 2, dtype=np.float32) / np.float32(size))
    if kind == "default":
        return Rotary(short=np.float32(1) / turns, original_context=context)
    original = config.get("original_max_position_embeddings") or given.get("original_max_position_embeddings", 4096)
    if type(original) is not int or original < 2:
        raise ModelError(f"{path}: original_max_position_embeddings must be an integer over 1, not {original!r}")
    short, long = (_factors(path, given, key, size // 2) for key in ("short_factor", "long_factor"))
    return Rotary(
        short=np.float32(1) / (short * turns),
        long=np.float32(1) / (long * turns),
        scale=_scale(path, given, context / original, original),
        original_context=original,
    )


def _scaling_type(given: Mapping[str, Any]) -> Any:
    """Return the type of scaling, under its present name or that of earlier releases, of which one may be null."""
    return given.get("rope_type") or given.get("type") or "default"


def _scale(path: PurePath, given: Mapping[str, Any], ratio: float, original: int) -> float:
    """Return the attention scaling factor of LongRoPE, section 3.3."""
    if given.get("attention_factor") is not None:
        return _number(path, given["attention_factor"], "attention_factor")
    factor = ratio if given.get("factor") is None else _number(path, given["factor"], "factor")
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))


def _factors(path: PurePath, given: Mapping[str, Any], key: str, expected: int) -> Floats:
    values = given.get(key)
    if values is None:
        raise ModelError(
            f"{path}: rotary embedding of type {_scaling_type(given)!r} without {key}, a list of {expected} numbers; "
            "the Phi-3 family is scaled by LongRoPE only"
        )
    if not isinstance(values, list) or len(values) != expected:
        raise ModelError(f"{path}: {key} must be a list of {expected} numbers")
    return np.array([_number(path, value, key) for value in values], np.float32)


def _number(path: PurePath, value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise ModelError(f"{path}: {key} must be a positive number, not {value!r}")
    return float(value)


def context_length(config: Mapping[str, Any]) -> int | None:
    """Return the context length in tokens that a ``config.json`` gives, or None."""
    length = config.get("max_position_embeddings")
    return length if type(length) is int and length > 0 else None


def longrope_limit(config: Mapping[str, Any]) -> int | None:
    """Return the length in tokens of the longest sequence that uses LongRoPE's short factors.

    None if there is only one set of factors. In a longer sequence the long factors apply to *all* positions, so a KV
    cache filled before is no longer valid. Reads both ``rope_scaling`` (transformers 4) and ``rope_parameters`` (5).
    """
    given = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(given, dict) or _scaling_type(given) == "default":
        return None
    context = context_length(config)
    original = config.get("original_max_position_embeddings") or given.get("original_max_position_embeddings", 4096)
    return original if type(original) is int and context is not None and 0 < original < context else None

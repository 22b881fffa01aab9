"""The next token from logits, which this library leaves to its caller."""

from __future__ import annotations

import functools

from phi3_core.sampling import Sampler

Picker = functools.partial(Sampler, likeliest_first=True)
"""Picks the tokens of one answer."""

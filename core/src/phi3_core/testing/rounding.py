"""Rounding of a weight in memory, to compare an engine's weights with."""

from __future__ import annotations

import numpy as np

from phi3_core.checkpoint.safetensors import Weight
from phi3_core.quantization.importance import Importance
from phi3_core.quantization.rounding import Rounded, round_blocks
from phi3_core.quantization.scales import Scheme


def round_weight(weight: Weight, scheme: Scheme, importance: Importance | None = None) -> Rounded:
    """Round a weight and return all its rows.

    Args:
        weight: ``[outputs, inputs]``.
        scheme: what to round to.
        importance: the importance of the inputs; None if all count the same.

    Raises:
        ModelError: the weight has values that are not finite.
        UsageError: the group size does not divide the number of inputs.
    """
    parts = [part for _, part in round_blocks(weight, scheme, importance)]
    return Rounded(
        scheme=scheme,
        values=np.concatenate([part.values for part in parts]),
        scales=np.concatenate([part.scales for part in parts]),
        zeros=None if scheme.symmetric else np.concatenate([part.zeros for part in parts if part.zeros is not None]),
    )

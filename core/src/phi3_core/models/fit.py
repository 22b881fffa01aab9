"""Whether a model fits a device: weights and KV cache against the device's memory."""

from __future__ import annotations

from phi3_core.errors import ModelError

from .catalogue import Known

# Bytes a weight, scales and what stays wider included: from the sizes of published weights of Phi-3-mini.
BYTES_PER_WEIGHT = {"fp16": 2.0, "int8": 1.03, "int4": 0.58}
USABLE = 0.9
"""The share of a device's memory that a model may take; the rest is the system's and the runtime's."""
SHORTEST_CONTEXT = 1024
"""A model that cannot hold so many tokens is of no use."""


class TooLargeError(ModelError):
    """The model does not fit the device."""


def weights_bytes(model: Known, precision: str) -> int:
    """An estimate of the weights' size, for before they are here."""
    return int(model.parameters * BYTES_PER_WEIGHT[precision])


def context_that_fits(model: Known, precision: str, memory_bytes: int) -> int:
    """Tokens of KV cache that fit beside the weights; at most the model's context, and less than nothing is 0."""
    room = memory_bytes * USABLE - weights_bytes(model, precision)
    return max(0, min(model.context_length, int(room // model.kv_bytes)))


def check(model: Known, precisions: tuple[str, ...], device: str, memory_bytes: int) -> tuple[str, ...]:
    """Those of ``precisions`` at which the model fits, in their order.

    Raises:
        TooLargeError: none; the message has the figures, the hint the nearest that does fit.
    """
    fitting = tuple(name for name in precisions if context_that_fits(model, name, memory_bytes) >= SHORTEST_CONTEXT)
    if fitting:
        return fitting
    smallest = min(precisions, key=BYTES_PER_WEIGHT.__getitem__)
    needed = weights_bytes(model, smallest) + SHORTEST_CONTEXT * model.kv_bytes
    others = [
        name
        for name in BYTES_PER_WEIGHT
        if name not in precisions and context_that_fits(model, name, memory_bytes) >= SHORTEST_CONTEXT
    ]
    hint = f"--precision {others[0]} fits" if others else "choose a smaller model: phi3 models list"
    raise TooLargeError(
        f"{model.name} at {smallest} needs {needed / 1e9:.1f} GB with {SHORTEST_CONTEXT} tokens of context, and "
        f"{device} has {memory_bytes / 1e9:.1f} GB, of which {USABLE:.0%} may be used",
        hint=hint,
    )

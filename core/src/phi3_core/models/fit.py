"""Check whether a model fits a device: weights and KV cache against the device's memory."""

from __future__ import annotations

from phi3_core.errors import TooLargeError
from phi3_core.units import format_bytes
from phi3_core.values import Device

from .catalogue import CATALOGUE, Known
from .ref import ModelRef

# Bytes per weight, including scales and layers of higher precision: from the sizes of published weights of Phi-3-mini.
BYTES_PER_WEIGHT = {"fp16": 2.0, "int8": 1.03, "int4": 0.58}
USABLE = 0.9
"""Share of a device's memory that a model may use; the rest is for the system and the runtime."""
SHORTEST_CONTEXT = 1024
"""Minimum number of tokens of KV cache; a model with less does not fit."""


def weights_bytes(model: Known, precision: str) -> int:
    """Return the estimated size of a model's weights in bytes."""
    return int(model.parameters * BYTES_PER_WEIGHT[precision])


def context_that_fits(model: Known, precision: str, memory_bytes: int) -> int:
    """Return the number of tokens whose KV cache fits beside the weights, from 0 to the model's context length."""
    room = memory_bytes * USABLE - weights_bytes(model, precision)
    return max(0, min(model.context_length, int(room // model.kv_bytes)))


def fitting_precisions(ref: ModelRef, device: Device, precisions: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of ``precisions`` at which the model fits the device's memory, in the same order.

    All of them are returned if the model is not in the catalogue or the device's memory is unknown.

    Raises:
        TooLargeError: the model fits at none of them. The message has the figures, the hint a precision that fits.
    """
    model, memory_bytes = CATALOGUE.get(ref.name), device.memory_bytes
    if model is None or ref.form != "named" or memory_bytes is None:
        return precisions
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
        f"{model.name} at {smallest} needs {format_bytes(needed)} with {SHORTEST_CONTEXT} tokens of context, and "
        f"{device} has {format_bytes(memory_bytes)}, of which {USABLE:.0%} may be used",
        hint=hint,
    )


def usable_context(ref: ModelRef, device: Device, precision: str, offered: int) -> int:
    """Return the context length that the device's memory allows: ``offered``, the engine's own, or less."""
    model, memory_bytes = CATALOGUE.get(ref.name), device.memory_bytes
    if model is None or ref.form != "named" or memory_bytes is None:
        return offered
    return min(offered, context_that_fits(model, precision, memory_bytes))

"""Whether a model fits a device: weights and KV cache against the device's memory."""

from __future__ import annotations

from phi3_core.errors import TooLargeError
from phi3_core.units import format_bytes
from phi3_core.values import Device

from .catalogue import CATALOGUE, Known
from .ref import ModelRef

# Bytes a weight, scales and what stays wider included: from the sizes of published weights of Phi-3-mini.
BYTES_PER_WEIGHT = {"fp16": 2.0, "int8": 1.03, "int4": 0.58}
USABLE = 0.9
"""The share of a device's memory that a model may take; the rest is the system's and the runtime's."""
SHORTEST_CONTEXT = 1024
"""A model that cannot hold so many tokens is of no use."""


def weights_bytes(model: Known, precision: str) -> int:
    """An estimate of the weights' size, for before they are here."""
    return int(model.parameters * BYTES_PER_WEIGHT[precision])


def context_that_fits(model: Known, precision: str, memory_bytes: int) -> int:
    """Tokens of KV cache that fit beside the weights; at most the model's context, and less than nothing is 0."""
    room = memory_bytes * USABLE - weights_bytes(model, precision)
    return max(0, min(model.context_length, int(room // model.kv_bytes)))


def fitting_precisions(ref: ModelRef, device: Device, precisions: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of ``precisions`` at which the model fits the device's memory, in their order.

    All of them if the model is not in the catalogue, or the device does not tell its memory.

    Raises:
        TooLargeError: it fits at none; the message has the figures, the hint the nearest that does fit.
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
    """Return the engine's context of ``offered`` tokens, or as much of it as the device's memory holds."""
    model, memory_bytes = CATALOGUE.get(ref.name), device.memory_bytes
    if model is None or ref.form != "named" or memory_bytes is None:
        return offered
    return min(offered, context_that_fits(model, precision, memory_bytes))

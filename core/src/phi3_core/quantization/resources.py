"""Checks for sufficient disk space and memory before quantization starts."""

from __future__ import annotations

from pathlib import Path

import psutil

from phi3_core.cgroups import memory_available, memory_limit
from phi3_core.checkpoint.architecture import read_architecture
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.safetensors import stored_bytes
from phi3_core.disk import check_free
from phi3_core.errors import ModelError
from phi3_core.units import format_bytes
from phi3_core.values import Source


def check_resources(output: Path, *, size: int, memory: int, margin: int = 0) -> None:
    """Check that quantization has enough disk space and memory. All sizes are in bytes.

    Args:
        output: a folder on the disk to write to.
        size: the size of the quantized model.
        memory: the peak memory of quantization.
        margin: disk space to keep free in addition.

    Raises:
        DiskFullError: too little of the disk is free.
        ModelError: too little memory is available.
    """
    hint = "free some space, or give another folder with --output"
    check_free(output, size + margin, "the quantized model", hint=hint)
    _check_memory(memory, "quantizing", hint="close other programs and try again")


def rounding_memory(checkpoint: Checkpoint) -> int:
    """Return the peak memory of calibration and rounding in bytes.

    The figures are measured: the runtime, copies of some blocks of the largest matrix, and calibration's activations.
    """
    return (600 << 20) + 8 * max(weight.raw.size for weight in checkpoint.linear)


def check_resources_for_reference(source: Source, output: Path, *, disk: float, memory: float) -> None:
    """Check that a reference exporter has enough disk space and memory, and would not pass over any weights.

    Args:
        source: the original weights.
        output: a folder on the disk to write to.
        disk: disk space as a multiple of the weights' size.
        memory: memory as a multiple of the weights' size.

    Raises:
        DiskFullError: too little of the disk is free.
        ModelError: too little memory is available, or the exporter would pass over weights.
    """
    _check_weights_for_reference(source.path)
    size = stored_bytes(source.path)
    check_free(output, disk * size, "the reference exporter")
    hint = "leave --exporter reference out: the built-in one takes a fraction of it"
    _check_memory((1 << 30) + memory * size, "the reference exporter", hint=hint)


def _check_weights_for_reference(folder: Path) -> None:
    """Check for weights that the exporters pass over in silence; what core cannot read is left to them."""
    try:
        stated = read_architecture(folder / "config.json")
    except ModelError:
        return
    if Checkpoint.open(folder).architecture.tied != stated.tied:
        raise ModelError(
            f"{folder} has an output layer of its own, lm_head.weight, which the reference exporter would pass over: "
            f"config.json has tie_word_embeddings: true",
            hint="set it to false in config.json, or leave --exporter reference out",
        )


def _check_memory(needed: float, what: str, *, hint: str) -> None:
    available, left = psutil.virtual_memory().available, memory_available()
    if left is not None and left < available:
        available, hint = left, f"the control group (container) allows {format_bytes(memory_limit() or 0)}: raise it"
    if available < needed:
        raise ModelError(
            f"{what} takes about {format_bytes(needed)} of memory; {format_bytes(available)} are available", hint=hint
        )

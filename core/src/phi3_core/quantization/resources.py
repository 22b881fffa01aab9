"""Whether disk and memory suffice, said with the figures before the work begins."""

from __future__ import annotations

from pathlib import Path

import psutil

from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.disk import check_free
from phi3_core.errors import ModelError
from phi3_core.units import format_bytes
from phi3_core.values import Source


def check_room(output: Path, *, size: int, memory: int, margin: int = 0) -> None:
    """Refuse to quantize into ``output`` without room for it. All figures are bytes.

    Args:
        output: a folder on the disk that is written to.
        size: of the finished model.
        memory: what the work takes at its peak.
        margin: what is to be free beyond that.

    Raises:
        DiskFullError: too little of the disk is free.
        ModelError: too little memory is available.
    """
    hint = "free some space, or give another folder with --output"
    check_free(output, size + margin, "the quantized model", hint=hint)
    _check_memory(memory, "quantizing", hint="close other programs and try again")


def rounding_memory(checkpoint: Checkpoint) -> int:
    """Bytes that calibrating and rounding take at their peak.

    Measured: the runtime, some copies of the largest matrix's blocks, and the activations of calibration.
    """
    return (600 << 20) + 8 * max(weight.raw.size for weight in checkpoint.linear)


def check_room_for_reference(source: Source, output: Path, *, disk: float, memory: float) -> None:
    """Refuse to run a reference exporter, which takes ``disk`` and ``memory`` times what the original weights take.

    Raises:
        DiskFullError: too little of the disk is free.
        ModelError: too little memory is available.
    """
    size = sum(file.stat().st_size for file in source.path.glob("*.safetensors"))
    check_free(output, disk * size, "the reference exporter")
    hint = "leave --exporter reference out: the built-in one takes a fraction of it"
    _check_memory((1 << 30) + memory * size, "the reference exporter", hint=hint)


def _check_memory(needed: float, what: str, *, hint: str) -> None:
    available = psutil.virtual_memory().available
    if available < needed:
        raise ModelError(
            f"{what} takes about {format_bytes(needed)} of memory; {format_bytes(available)} are available", hint=hint
        )

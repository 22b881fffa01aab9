"""Whether disk and memory suffice, said with the figures before the work begins."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil

from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.errors import ModelError, StoreError
from phi3_core.values import Source


def check_room(output: Path, *, size: int, memory: int, margin: int = 0) -> None:
    """Refuse to quantize into ``output`` without room for it. All figures are bytes.

    Args:
        output: a folder on the disk that is written to.
        size: of the finished model.
        memory: what the work takes at its peak.
        margin: what is to be free beyond that.

    Raises:
        ModelError: too little of one of them.
    """
    free = shutil.disk_usage(output).free
    if free < size + margin:
        raise ModelError(
            f"{output} has {_gigabytes(free)} free; the model takes {_gigabytes(size)}",
            hint="free some room, or give another folder with --output",
        )
    available = psutil.virtual_memory().available
    if available < memory:
        raise ModelError(
            f"quantizing takes about {_gigabytes(memory)} of memory; {_gigabytes(available)} are available",
            hint="close other programs and try again",
        )


def rounding_memory(checkpoint: Checkpoint) -> int:
    """Bytes that calibrating and rounding take at their peak.

    Measured: the runtime, some copies of the largest matrix's blocks, and the activations of calibration.
    """
    return (600 << 20) + 8 * max(weight.raw.size for weight in checkpoint.linear)


def check_room_for_reference(source: Source, output: Path, *, disk: float, memory: float) -> None:
    """Refuse to run a reference exporter, which takes ``disk`` and ``memory`` times what the original weights take.

    Raises:
        StoreError: too little room on the disk.
        ModelError: too little memory.
    """
    size = sum(file.stat().st_size for file in source.path.glob("*.safetensors"))
    free = shutil.disk_usage(output).free
    if free < disk * size:
        raise StoreError(
            f"{output} has {_gigabytes(free)} free; the reference exporter takes up to {_gigabytes(disk * size)}",
            hint="free some room, or set PHI3_HOME to a folder on another disk",
        )
    needed, available = (1 << 30) + memory * size, psutil.virtual_memory().available
    if available < needed:
        raise ModelError(
            f"the reference exporter takes about {_gigabytes(needed)} of memory; {_gigabytes(available)} are available",
            hint="leave --exporter reference out: the built-in one takes a fraction of it",
        )


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"

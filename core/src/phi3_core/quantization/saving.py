"""Save a checkpoint's weights without rounding them, for engines that read checkpoints as transformers does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.contents import SINGLE
from phi3_core.checkpoint.limits import read_config
from phi3_core.checkpoint.safetensors import Weight
from phi3_core.checkpoint.safetensors_writer import SafetensorsWriter, TensorSpec
from phi3_core.values import Progress

from .resources import check_resources

_AT_ONCE = 1 << 22
_MEMORY = 200 << 20


def save_weights(checkpoint: Checkpoint, output: Path, progress: Progress) -> Path:
    """Write the weights of a checkpoint in 16 bits to ``model.safetensors``, under the names of transformers.

    Weights in bfloat16 stay as they are; others become float16, those of GGUF files too. If ``config.json`` of the
    checkpoint is wrong about tied embeddings, a right one is written beside the weights.

    Args:
        checkpoint: the original weights.
        output: the folder to write to.
        progress: called with the bytes written.

    Returns:
        The file.

    Raises:
        DiskFullError: too little of the disk is free.
        ModelError: a weight has values that are not finite, or too little memory is available.
    """
    weights = list(_weights(checkpoint))
    specs = [TensorSpec(name=weight.name, dtype=_dtype(weight), shape=weight.shape) for weight in weights]
    done, total = 0, sum(spec.size_bytes for spec in specs)
    check_resources(output, size=total, memory=_MEMORY, margin=16 << 20)
    file = output / SINGLE
    with SafetensorsWriter(file, specs) as writer:
        for weight, spec in zip(weights, specs, strict=True):
            for rows in weight.blocks(_AT_ONCE):
                if spec.dtype == "BF16":
                    weight.check_finite(rows)
                    writer.put(weight.name, weight.raw[rows], rows.start)
                else:
                    writer.put(weight.name, np.ascontiguousarray(weight.float16(rows)), rows.start)
            done += spec.size_bytes
            progress("writing weights", done, total)
    config = dict(read_config(checkpoint.path))
    if bool(config.get("tie_word_embeddings", False)) != checkpoint.architecture.tied:
        config["tie_word_embeddings"] = checkpoint.architecture.tied
        (output / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return file


def _weights(checkpoint: Checkpoint) -> Iterator[Weight]:
    yield checkpoint.embedding
    for layer in checkpoint.layers:
        yield layer.input_norm
        yield layer.post_norm
        yield from layer.linear
    yield checkpoint.norm
    if not checkpoint.architecture.tied:
        yield checkpoint.head


def _dtype(weight: Weight) -> str:
    return "BF16" if weight.dtype == "BF16" else "F16"

"""Quantize a checkpoint to an artifact for this backend.

The library's kernels support one scale per output channel, not groups. Therefore 4-bit weights are rounded with
calibration and searched scales, and the output layer gets 8 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from phi3_core.backend import (
    Checkpoint,
    RoundingPlan,
    SafetensorsWriter,
    Scheme,
    TensorSpec,
    Weight,
    check_even_inputs,
    check_extra,
    check_recipe,
    check_room,
    make_plan,
    read_calibration,
    round_blocks,
)
from phi3_core.errors import UsageError
from phi3_core.values import Device, Progress, Recipe, Source

from . import weights

HEAD = "lm_head.weight"
_AT_ONCE = 1 << 22
_BYTE, _NIBBLE = Scheme(bits=8), Scheme(bits=4)


def quantize(source: Source, device: Device, recipe: Recipe, output: Path, progress: Progress) -> Mapping[str, str]:
    """Write the quantized weights into the folder ``output``.

    Args:
        source: the original weights.
        device: the device the artifact is for.
        recipe: how to quantize.
        output: an empty folder.
        progress: called as the work proceeds.

    Returns:
        The versions of the tools used, by name; empty, because core records its own.

    Raises:
        DiskFullError: too little of the disk is free.
        ModelError: the checkpoint is damaged, or too little memory is available.
        UsageError: the recipe asks for something the library does not support.
    """
    checkpoint = Checkpoint.open(source.path)
    _check(checkpoint, device, recipe)
    matrices = dict(_matrices(checkpoint))
    schemes = _schemes(checkpoint, recipe)
    if checkpoint.architecture.tied and HEAD not in schemes:
        del matrices[HEAD]  # identical to the embedding
    tensors = tuple(_tensors(checkpoint, matrices, schemes))
    _check_room(matrices, schemes, sum(tensor.size_bytes for tensor in tensors), output)
    # 8 bits need no calibration: their error is small.
    given = recipe.extra.get("calibration") if recipe.precision == "int4" else "none"
    plan = make_plan(checkpoint, schemes, read_calibration(checkpoint, given, progress))
    with SafetensorsWriter(output / weights.FILE, tensors, metadata={weights.MARK: recipe.precision}) as writer:
        _write(checkpoint, matrices, plan, writer, progress)
    return {}


def _check(checkpoint: Checkpoint, device: Device, recipe: Recipe) -> None:
    """Check that the kernels support the recipe.

    Raises:
        UsageError: they do not.
    """
    check_extra("npu", recipe, known=("calibration",))
    if recipe.group_size not in {None, -1}:
        raise UsageError(
            f"{device} takes one scale per channel, no groups of {recipe.group_size}", hint="leave the group size out"
        )
    if recipe.symmetric is False:
        raise UsageError(f"{device} takes symmetric weights only", hint="use --sym")
    check_recipe(recipe, grouped=())
    if recipe.precision == "int4":
        check_even_inputs(checkpoint.linear)


def _matrices(checkpoint: Checkpoint) -> Iterator[tuple[str, Weight]]:
    """Yield the linear layers, including a tied output layer, with their names in the file."""
    for weight in checkpoint.linear:
        yield weight.name, weight
    yield HEAD, checkpoint.head


def _schemes(checkpoint: Checkpoint, recipe: Recipe) -> dict[str, Scheme]:
    """Return the scheme of each linear layer: 8 bits for the output layer and for layers beyond the ratio.

    The library's kernel cache distinguishes layers by shape, not by bits. Layers with 4 and with 8 bits must therefore
    differ in shape, or a layer would use the wrong kernel: all layers of a kind get the same scheme.
    """
    if recipe.precision == "fp16":
        return {}
    kinds = {
        kind: [getattr(layer, kind) for layer in checkpoint.layers] for kind in ("down", "output", "qkv", "gate_up")
    }
    if recipe.precision == "int8":
        return {weight.name: _BYTE for each in kinds.values() for weight in each} | {HEAD: _BYTE}
    sizes = {kind: sum(weight.raw.size for weight in each) for kind, each in kinds.items()}
    low, limit = sum(sizes.values()), recipe.ratio * sum(sizes.values())
    wide: set[str] = set()
    for kind, size in sizes.items():  # in order of the gain from 8 bits for their size
        if low > limit:
            wide.add(kind)
            low -= size
    narrow = {each[0].shape for kind, each in kinds.items() if kind not in wide}
    schemes = {
        weight.name: _BYTE if kind in wide and weight.shape not in narrow else _NIBBLE
        for kind, each in kinds.items()
        for weight in each
    }
    # Float16 layers have separate kernels, so an output layer of a 4-bit layer's shape stays in float16.
    return schemes if checkpoint.head.shape in narrow else {**schemes, HEAD: _BYTE}


def _norms(checkpoint: Checkpoint) -> Iterator[tuple[Weight, Weight]]:
    """Yield each norm with the linear layer that follows it."""
    for layer in checkpoint.layers:
        yield layer.input_norm, layer.qkv
        yield layer.post_norm, layer.gate_up
    yield checkpoint.norm, checkpoint.head


def _tensors(
    checkpoint: Checkpoint, matrices: Mapping[str, Weight], schemes: Mapping[str, Scheme]
) -> Iterator[TensorSpec]:
    yield TensorSpec(name=checkpoint.embedding.name, dtype="F16", shape=checkpoint.embedding.shape)
    for norm, _ in _norms(checkpoint):
        yield TensorSpec(name=norm.name, dtype="F32", shape=norm.shape)
    for name, weight in matrices.items():
        outputs, inputs = weight.shape
        scheme = schemes.get(name)
        if scheme is None:
            yield TensorSpec(name=name, dtype="F16", shape=weight.shape)
            continue
        packed = scheme.bits == 4
        shape = (outputs, inputs // 2 if packed else inputs)
        yield TensorSpec(name=name, dtype="U8" if packed else "I8", shape=shape)
        yield TensorSpec(name=weights.scale_of(name), dtype="F16", shape=(outputs, 1))


def _check_room(matrices: Mapping[str, Weight], schemes: Mapping[str, Scheme], size: int, output: Path) -> None:
    """Check for sufficient disk space and memory."""
    # Copies of some blocks of rows and, for 4 bits, the activations of the calibration.
    memory = (300 << 20) + (8 * max(weight.raw.size for weight in matrices.values()) if schemes else 0)
    check_room(output, size=size, memory=memory, margin=16 << 20)


def _write(
    checkpoint: Checkpoint,
    matrices: Mapping[str, Weight],
    plan: RoundingPlan,
    writer: SafetensorsWriter,
    progress: Progress,
) -> None:
    _write_half(checkpoint.embedding.name, checkpoint.embedding, writer)
    for norm, feeds in _norms(checkpoint):
        writer.put(norm.name, plan.norm(norm, feeds).astype(np.float32))
    done, total = 0, sum(weight.raw.size for weight in matrices.values())
    for name, weight in matrices.items():
        scheme = plan.schemes.get(name)
        if scheme is None:
            _write_half(name, weight, writer)
        else:
            importance, factors = plan.importance.get(weight.name), plan.factors.get(name)
            for rows, rounded in round_blocks(weight, scheme, importance, factors=factors, pack=True):
                writer.put(name, rounded.values, rows.start)
                writer.put(weights.scale_of(name), rounded.scales, rows.start)
        done += weight.raw.size
        progress("rounding weights" if scheme else "preparing weights", done, total)


def _write_half(name: str, weight: Weight, writer: SafetensorsWriter) -> None:
    for rows in weight.blocks(_AT_ONCE):
        writer.put(name, weight.float16(rows), rows.start)

"""Quantize a checkpoint to an ONNX folder for onnxruntime-genai."""

from __future__ import annotations

from pathlib import Path

from phi3_core.backend import (
    Architecture,
    Checkpoint,
    RoundingPlan,
    RoundingSettings,
    Scheme,
    Weight,
    check_extra,
    check_group_size,
    check_recipe,
    check_resources,
    fitting_group_size,
    own_group_size,
    rounding_memory,
    stored_counter,
    wants_reference,
)
from phi3_core.errors import UsageError
from phi3_core.values import Device, Progress, Recipe, Source

from . import __version__, configuration, graph, graph_weights, layouts
from .layouts import Layout
from .onnx import writer

_BLOCKS = (32, 64, 128, 256)
"""Group sizes that the kernels of ``MatMulNBits`` support."""
_LARGEST_GRAPH = 64 << 20


def layout_of(device: Device) -> Layout:
    """Return the graph layout for a device."""
    return layouts.CPU if device.kind == "cpu" else layouts.DIRECTML


def quantize(source: Source, device: Device, recipe: Recipe, output: Path, progress: Progress) -> dict[str, str]:
    """Write ``model.onnx``, its data file and ``genai_config.json`` into the folder ``output``.

    Args:
        source: the original weights.
        device: the device the artifact is for.
        recipe: how to quantize.
        output: an empty folder.
        progress: called as the work proceeds.

    Returns:
        The versions of the tools used, by name.

    Raises:
        DiskFullError: too little of the disk is free.
        ModelError: the checkpoint is damaged, too little memory is available, or the reference exporter failed.
        UsageError: the recipe does not fit the device or the checkpoint.
    """
    check_extra("dml", recipe)
    if wants_reference(recipe):
        from . import reference

        return reference.quantize(source, device, recipe, output, progress)
    checkpoint = Checkpoint.open(source.path)
    layout = layout_of(device)
    settings = _decide(checkpoint, device, layout, recipe)
    _check_resources(checkpoint, layout, settings, output)
    # The output layer gets 8 bits even if the others get 4.
    plan = settings.plan(checkpoint, outer=(checkpoint.head,), int8_scheme=int8_scheme, progress=progress)
    _write(checkpoint, layout, plan, output, progress)
    return {"phi3-dml": __version__}


def _write(checkpoint: Checkpoint, layout: Layout, plan: RoundingPlan, output: Path, progress: Progress) -> None:
    with graph_weights.DataFile(output / configuration.DATA) as data:
        weights = graph_weights.StoredWeights(
            plan,
            data,
            float16=layout.float16,
            explicit_zeros=layout.explicit_zeros,
            stored=stored_counter(checkpoint, plan, progress),
        )
        built = graph.build(checkpoint, weights, layout)
    progress("writing the model")
    (output / configuration.MODEL).write_bytes(writer.write_model(built, "phi3-dml", __version__))
    configuration.write(checkpoint, output, positions=not layouts.is_fused(checkpoint.architecture, layout))


def int8_scheme(weight: Weight) -> Scheme:
    """Return the 8-bit scheme of a weight, with the largest group size that divides its number of inputs."""
    size = next((size for size in reversed(_BLOCKS) if weight.shape[1] % size == 0), -1)
    return Scheme(bits=8, group_size=size)


def _decide(checkpoint: Checkpoint, device: Device, layout: Layout, recipe: Recipe) -> RoundingSettings:
    """Return the recipe's settings with all defaults filled in.

    Raises:
        UsageError: the recipe does not fit the device or the checkpoint.
    """
    _check_shape(checkpoint.architecture)
    check_recipe(recipe, grouped=("int4", "int8"))
    linear = None
    if recipe.precision != "fp16":
        bits = 4 if recipe.precision == "int4" else 8
        size = recipe.group_size or _group_size(checkpoint, layout, bits)
        if size not in _BLOCKS:
            said = "one scale a channel" if size == -1 else f"groups of {size}"
            raise UsageError(
                f"{device} takes no {said}", hint=f"use a group size of {', '.join(map(str, _BLOCKS[:-1]))} or 256"
            )
        linear = Scheme(bits=bits, symmetric=recipe.symmetric is not False, group_size=size)
        for weight in (*checkpoint.linear, checkpoint.head):
            check_group_size(weight, linear)
            if layout.explicit_zeros and not linear.symmetric and bits == 4 and weight.shape[1] // size % 2:
                raise UsageError(
                    f"{device} takes asymmetric weights with an even number of groups only; {weight.name} has "
                    f"{weight.shape[1] // size}",
                    hint="use --sym, or another group size",
                )
    return RoundingSettings(linear=linear, ratio=recipe.ratio, calibration=recipe.extra.get("calibration"))


def _check_shape(shape: Architecture) -> None:
    """Check that ``GroupQueryAttention`` supports the architecture."""
    if shape.head_size % 8:
        raise UsageError(f"ONNX Runtime's attention needs heads of a multiple of 8, not {shape.head_size}")


def _group_size(checkpoint: Checkpoint, layout: Layout, bits: int) -> int:
    """Return the default group size: 32 for int4 on CPUs, as in published weights, else the largest of 128, 64, 32.

    Weights that were quantized already keep their groups.
    """
    if (own := own_group_size(checkpoint.linear, bits)) in _BLOCKS:
        return own
    wanted = (32,) if not layout.float16 and bits == 4 else (128, 64, 32)
    weights = (*checkpoint.linear, checkpoint.head)
    size = fitting_group_size(weights, wanted)
    if size is None:
        widths = {weight.shape[1] for weight in weights}
        raise UsageError(f"no groups of {' or '.join(map(str, wanted))} divide the layers' inputs: {sorted(widths)}")
    return size


def _check_resources(checkpoint: Checkpoint, layout: Layout, settings: RoundingSettings, output: Path) -> None:
    """Check for sufficient disk space and memory."""
    low = settings.linear
    size = 2 * checkpoint.embedding.raw.size
    for weight in (*checkpoint.linear, checkpoint.head):
        scheme = int8_scheme(weight) if low and weight is checkpoint.head else low
        size += graph_weights.stored_bytes(weight, scheme, float16=layout.float16, zeros=layout.explicit_zeros)
    size = settings.size_with_ratio(size)
    tables = checkpoint.architecture.context * checkpoint.architecture.rotary.size * (2 if layout.float16 else 4)
    size += 2 * tables + _LARGEST_GRAPH
    check_resources(output, size=size, memory=rounding_memory(checkpoint))

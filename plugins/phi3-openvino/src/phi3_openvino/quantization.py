"""Quantize a checkpoint to an OpenVINO IR for OpenVINO GenAI."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import openvino
from phi3_core.backend import (
    Checkpoint,
    RoundingSettings,
    Scheme,
    check_even_inputs,
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

from . import graph, graph_weights, npu

MODEL = "openvino_model.xml"
_BYTE_SCHEME = Scheme(bits=8)
_LARGE = 4_000_000_000
"""Parameters above which the NPU should use one scale per channel (OpenVINO's guide to LLMs on the NPU)."""


def quantize(source: Source, device: Device, recipe: Recipe, output: Path, progress: Progress) -> Mapping[str, str]:
    """Write ``openvino_model.xml`` and its ``.bin`` file into the folder ``output``.

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
    _check(device, recipe)
    if wants_reference(recipe):
        from . import reference

        return reference.quantize(source, device, recipe, output, progress)
    checkpoint = Checkpoint.open(source.path)
    settings = _decide(checkpoint, device, recipe)
    _check_resources(checkpoint, settings, output)
    # The output layer and the embedding get 8 bits, as in optimum-intel.
    outer = (checkpoint.embedding, checkpoint.head)
    plan = settings.plan(checkpoint, outer=outer, int8_scheme=lambda _: _BYTE_SCHEME, progress=progress)
    graph.write(checkpoint, plan, output / MODEL, stored_counter(checkpoint, plan, progress))
    return {"openvino": openvino.__version__.split("-", maxsplit=1)[0]}


def _check(device: Device, recipe: Recipe) -> None:
    """Check the recipe as far as possible without the checkpoint.

    Raises:
        UsageError: the recipe does not fit the device.
    """
    check_extra("openvino", recipe)
    check_recipe(recipe, grouped=("int4",))
    if npu.runs_on(device):
        _check_npu(device, recipe)


def _decide(checkpoint: Checkpoint, device: Device, recipe: Recipe) -> RoundingSettings:
    """Return the recipe's settings with all defaults filled in.

    Raises:
        UsageError: the recipe does not fit the checkpoint.
    """
    on_npu = npu.runs_on(device)
    linear = None
    if recipe.precision == "int8":
        linear = Scheme(bits=8, symmetric=recipe.symmetric is not False)
    elif recipe.precision == "int4":
        size = recipe.group_size or _group_size(checkpoint, on_npu=on_npu)
        linear = Scheme(bits=4, symmetric=recipe.symmetric is not False, group_size=size)
        for weight in checkpoint.linear:
            check_group_size(weight, linear)
        check_even_inputs(checkpoint.linear)
    return RoundingSettings(linear=linear, ratio=recipe.ratio, calibration=recipe.extra.get("calibration"))


def _check_npu(device: Device, recipe: Recipe) -> None:
    """Check that the NPU's compiler supports the recipe: symmetric, one precision, per channel or in groups of 128."""
    if recipe.symmetric is False:
        raise UsageError(f"{device} takes symmetric weights only", hint="use --sym")
    if recipe.ratio != 1:
        raise UsageError(f"{device} takes one precision throughout, not a ratio of {recipe.ratio}", hint="leave it out")
    if recipe.group_size not in {None, -1, 128}:
        raise UsageError(f"{device} takes no groups of {recipe.group_size}", hint="use a group size of 128 or -1")


def _group_size(checkpoint: Checkpoint, *, on_npu: bool) -> int:
    if not on_npu and (own := own_group_size(checkpoint.linear, bits=4)):
        return own
    if on_npu and checkpoint.parameters > _LARGE:
        return -1
    return fitting_group_size(checkpoint.linear, (128,) if on_npu else (128, 64, 32)) or -1


def _check_resources(checkpoint: Checkpoint, settings: RoundingSettings, output: Path) -> None:
    """Check for sufficient disk space and memory."""
    each = {weight.name: weight for weight in (checkpoint.embedding, checkpoint.head, *checkpoint.linear)}
    linear = {weight.name for weight in checkpoint.linear}
    low = settings.linear
    outer = None if low is None else _BYTE_SCHEME
    size = sum(graph_weights.stored_bytes(weight, low if name in linear else outer) for name, weight in each.items())
    size = settings.size_with_ratio(size)
    check_resources(output, size=size, memory=rounding_memory(checkpoint), margin=64 << 20)

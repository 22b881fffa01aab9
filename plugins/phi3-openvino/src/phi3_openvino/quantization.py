"""From a checkpoint to a folder that openvino-genai loads: decide, check, round, write."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen
from phi3_core.errors import UsageError
from phi3_core.quantization.checkpoint import Checkpoint
from phi3_core.quantization.mapped import Weight
from phi3_core.quantization.plan import Plan, make_plan, read_calibration, spared
from phi3_core.quantization.room import check_room
from phi3_core.quantization.rounding import check_group_size
from phi3_core.quantization.scales import Scheme
from phi3_core.values import Device, Progress, Recipe, Source

from . import graph, graph_weights

MODEL = "openvino_model.xml"
_BYTE_SCHEME = Scheme(bits=8)
_LARGE = 4_000_000_000
"""Weights from which on the NPU wants one scale per channel (OpenVINO's guide to LLMs on the NPU)."""


@frozen(kw_only=True)
class _Settings:
    """A recipe with every choice made."""

    linear: Scheme | None
    """For the decoder's linear layers; None keeps them in half precision."""
    ratio: float
    calibration: str | None
    """A file, ``none``, or None for the built-in text."""


def quantize(
    source: Source, device: Device, recipe: Recipe, output: Path, progress: Progress
) -> Mapping[str, str] | None:
    """Write ``openvino_model.xml`` and its ``.bin`` into the folder ``output``."""
    check_recipe(device, recipe)
    if recipe.extra.get("exporter", "builtin") != "builtin":
        from . import reference

        return reference.quantize(source, device, recipe, output, progress)
    checkpoint = Checkpoint.open(source.path)
    settings = _decide(checkpoint, device, recipe)
    _check_room(checkpoint, settings, output)
    plan = _plan(checkpoint, settings, progress)
    # On Windows a file cannot go while it is mapped, so that cleaning up may fail there until the process ends.
    with tempfile.TemporaryDirectory(dir=output, prefix="scratch-", ignore_cleanup_errors=True) as scratch:
        _write(checkpoint, plan, Path(scratch), output, progress)
    return None


def _write(checkpoint: Checkpoint, plan: Plan, scratch: Path, output: Path, progress: Progress) -> None:
    """A function of its own, so that all that maps the scratch files is gone when it returns."""
    done = 0

    def stored(weight: Weight) -> None:
        nonlocal done
        done += weight.raw.size
        progress("rounding weights" if plan.schemes else "preparing weights", done, checkpoint.parameters)

    weights = graph_weights.CompressedWeights(plan, graph_weights.Scratch(scratch), stored)
    model = graph.build(checkpoint, weights)
    progress("writing the model")
    graph.save(model, output / MODEL)


def check_recipe(device: Device, recipe: Recipe) -> None:
    """Refuse what does not go together, whatever the checkpoint is like."""
    unknown = set(recipe.extra) - {"calibration", "exporter"}
    if unknown:
        raise UsageError(f"openvino knows no quantization setting {', '.join(sorted(unknown))}", hint="use calibration")
    exporter = recipe.extra.get("exporter", "builtin")
    if exporter not in {"builtin", "reference"}:
        raise UsageError(f"openvino knows no exporter {exporter!r}", hint="--exporter builtin or reference")
    if recipe.precision != "int4":
        if recipe.ratio != 1:
            raise UsageError(f"a ratio of {recipe.ratio} needs int4: it is the share of layers that get 4 bits")
        if recipe.group_size not in {None, -1}:
            raise UsageError(
                f"{recipe.precision} has no groups of {recipe.group_size}", hint="leave the group size out"
            )
    if device.kind == "npu":
        _check_npu(device, recipe)


def _decide(checkpoint: Checkpoint, device: Device, recipe: Recipe) -> _Settings:
    """Fill in what the recipe leaves open, and refuse what does not fit the checkpoint."""
    npu = device.kind == "npu"
    linear = None
    if recipe.precision == "int8":
        linear = Scheme(bits=8, symmetric=recipe.symmetric is not False)
    elif recipe.precision == "int4":
        size = recipe.group_size or _group_size(checkpoint, npu=npu)
        linear = Scheme(bits=4, symmetric=recipe.symmetric is not False, group_size=size)
        for weight in checkpoint.linear:
            check_group_size(weight, linear)
            if weight.shape[1] % 2:
                raise UsageError(f"{weight.name} has {weight.shape[1]} inputs; int4 needs an even number")
    return _Settings(linear=linear, ratio=recipe.ratio, calibration=recipe.extra.get("calibration"))


def _check_npu(device: Device, recipe: Recipe) -> None:
    """What the NPU's compiler takes: symmetric, one precision throughout, channels or groups of 128."""
    if recipe.symmetric is False:
        raise UsageError(f"{device} takes symmetric weights only", hint="use --sym")
    if recipe.ratio != 1:
        raise UsageError(f"{device} takes one precision throughout, not a ratio of {recipe.ratio}", hint="leave it out")
    if recipe.group_size not in {None, -1, 128}:
        raise UsageError(f"{device} takes no groups of {recipe.group_size}", hint="use a group size of 128 or -1")


def _group_size(checkpoint: Checkpoint, *, npu: bool) -> int:
    widths = {weight.shape[1] for weight in checkpoint.linear}
    fitting = (size for size in ((128,) if npu else (128, 64, 32)) if not any(width % size for width in widths))
    return -1 if npu and checkpoint.parameters > _LARGE else next(fitting, -1)


def _check_room(checkpoint: Checkpoint, settings: _Settings, output: Path) -> None:
    """Memory and disk, before the work begins. Rounded weights lie on the disk twice while the model is written."""
    each = {weight.name: weight for weight in (checkpoint.embedding, checkpoint.head, *checkpoint.linear)}
    linear = {weight.name for weight in checkpoint.linear}
    low = settings.linear
    outer = None if low is None else _BYTE_SCHEME
    size = sum(graph_weights.stored_bytes(weight, low if name in linear else outer) for name, weight in each.items())
    if settings.ratio < 1:
        size = round(size * (1 + (1 - settings.ratio)))
    twice = low is not None or checkpoint.embedding.dtype != "F16"
    # Measured: the runtime, some copies of the largest matrix's blocks, and the activations of calibration.
    memory = (600 << 20) + 8 * max(weight.raw.size for weight in each.values() if weight.name in linear)
    check_room(output, size=size, memory=memory, twice=twice, margin=64 << 20)


def _plan(checkpoint: Checkpoint, settings: _Settings, progress: Progress) -> Plan:
    """The output layer and the embedding get 8 bits, as optimum-intel has it, and so do the layers beyond the ratio."""
    low = settings.linear
    if low is None:
        return Plan()
    calibration = read_calibration(checkpoint, settings.calibration, progress) if low.bits == 4 else None
    schemes = {weight.name: low for weight in checkpoint.linear}
    schemes |= {weight.name: _BYTE_SCHEME for weight in (checkpoint.embedding, checkpoint.head)}
    if settings.ratio < 1:
        schemes |= dict.fromkeys(
            (weight.name for weight in spared(checkpoint, low, settings.ratio, calibration, progress)), _BYTE_SCHEME
        )
    return make_plan(checkpoint, schemes, calibration)

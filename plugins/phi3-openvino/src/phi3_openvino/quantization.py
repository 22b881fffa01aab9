"""From a checkpoint to a folder that openvino-genai loads: decide, check, round, write."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import psutil
from attrs import frozen
from phi3_core.errors import ModelError, UsageError
from phi3_core.paths import engine_cache
from phi3_core.quantization.calibration import Calibration, calibration_for
from phi3_core.quantization.checkpoint import Checkpoint
from phi3_core.quantization.importance import Importance
from phi3_core.quantization.mapped import Floats, Weight
from phi3_core.quantization.rounding import check_group_size, find_balance, round_rows
from phi3_core.quantization.scales import Scheme
from phi3_core.values import Device, Progress, Recipe, Source

from . import graph, graph_weights

MODEL = "openvino_model.xml"
BESIDE = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
)
"""What belongs to a model besides its weights; what the checkpoint lacks is left out."""
_BYTE_SCHEME = Scheme(bits=8)
_LARGE = 4_000_000_000
"""Weights from which on the NPU wants one scale per channel (OpenVINO's guide to LLMs on the NPU)."""
_SAMPLED = 16
"""One row in so many is rounded to see how much a layer suffers."""


@frozen(kw_only=True)
class _Settings:
    """A recipe with every choice made."""

    linear: Scheme | None
    """For the decoder's linear layers; None keeps them in half precision."""
    ratio: float
    calibration: str | None
    """A file, ``none``, or None for the built-in text."""

    @property
    def calibrated(self) -> bool:
        return self.linear is not None and self.linear.bits == 4 and self.calibration != "none"


def quantize(
    source: Source, device: Device, recipe: Recipe, output: Path, progress: Progress
) -> Mapping[str, str] | None:
    """Write ``openvino_model.xml``, its ``.bin``, the configuration and the tokenizer into the folder ``output``."""
    check_recipe(device, recipe)
    if recipe.extra.get("exporter", "builtin") != "builtin":
        from . import reference

        return reference.quantize(source, device, recipe, output, progress)
    checkpoint = Checkpoint.open(source.path)
    settings = _decide(checkpoint, device, recipe)
    _check_room(checkpoint, settings, output)
    calibration = _calibration(checkpoint, settings, progress)
    schemes = _schemes(checkpoint, settings, calibration, progress)
    plan = graph_weights.Plan(schemes=schemes)
    if calibration:
        importance = _balance(checkpoint, schemes, calibration, progress)
        plan = graph_weights.Plan(schemes=schemes, importance=importance, factors=_factors(checkpoint, importance))
    # On Windows a file cannot go while it is mapped, so that cleaning up may fail there until the process ends.
    with tempfile.TemporaryDirectory(dir=output, prefix="scratch-", ignore_cleanup_errors=True) as scratch:
        _write(checkpoint, plan, Path(scratch), output, progress)
    for name in BESIDE:
        if (source.path / name).is_file():
            shutil.copyfile(source.path / name, output / name)
    return None


def _write(checkpoint: Checkpoint, plan: graph_weights.Plan, scratch: Path, output: Path, progress: Progress) -> None:
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
    free = shutil.disk_usage(output).free
    if free < size * (2 if twice else 1) + (64 << 20):
        raise ModelError(
            f"{output} has {_gigabytes(free)} free; the model takes {_gigabytes(size)}"
            + (", and as much again while it is written" if twice else ""),
            hint="free some room, or give another folder with --output",
        )
    # Measured: the runtime, some copies of the largest matrix's blocks, and the activations of calibration.
    needed = (600 << 20) + 8 * max(weight.raw.size for weight in each.values() if weight.name in linear)
    available = psutil.virtual_memory().available
    if available < needed:
        raise ModelError(
            f"quantizing takes about {_gigabytes(needed)} of memory; {_gigabytes(available)} are available",
            hint="close other programs and try again",
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _calibration(checkpoint: Checkpoint, settings: _Settings, progress: Progress) -> Calibration | None:
    if not settings.calibrated:
        return None
    kept = engine_cache("core", "calibration")
    if settings.calibration is None:
        return calibration_for(checkpoint, cache=kept, progress=progress)
    path = Path(settings.calibration)
    if path.suffix == ".npz":
        return Calibration.load(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"the calibration text {path} cannot be read: {error}") from error
    return calibration_for(checkpoint, text=text, cache=kept, progress=progress)


def _schemes(
    checkpoint: Checkpoint, settings: _Settings, calibration: Calibration | None, progress: Progress
) -> dict[str, Scheme]:
    """The output layer and the embedding get 8 bits, as optimum-intel has it, and so do the layers beyond the ratio."""
    if settings.linear is None:
        return {}
    schemes = {weight.name: settings.linear for weight in checkpoint.linear}
    schemes |= {weight.name: _BYTE_SCHEME for weight in (checkpoint.embedding, checkpoint.head)}
    if settings.ratio < 1:
        spared = _spared(checkpoint, settings.linear, settings.ratio, calibration, progress)
        schemes |= {weight.name: _BYTE_SCHEME for weight in spared}
    return schemes


def _balance(
    checkpoint: Checkpoint, schemes: Mapping[str, Scheme], calibration: Calibration, progress: Progress
) -> dict[str, Importance]:
    """The importance of all inputs, balanced where somebody before the layer can divide them at no cost."""
    importance = {weight.name: calibration.of(weight) for weight in (*checkpoint.linear, checkpoint.head)}
    for index, layer in enumerate(checkpoint.layers):
        progress("balancing inputs", index, len(checkpoint.layers))
        for weight in (layer.qkv, layer.gate_up, layer.down):
            if schemes[weight.name].bits == 4:
                importance[weight.name] = find_balance(weight, schemes[weight.name], importance[weight.name])
    return importance


def _factors(checkpoint: Checkpoint, importance: Mapping[str, Importance]) -> dict[str, Floats]:
    """What the inputs of ``down`` are divided by goes into the rows of ``up``, whose outputs they are."""
    factors: dict[str, Floats] = {}
    for layer in checkpoint.layers:
        balance = importance[layer.down.name].balance
        if balance is not None:
            factors[layer.gate_up.name] = np.concatenate([np.ones_like(balance), 1 / balance])
    return factors


def _spared(
    checkpoint: Checkpoint, scheme: Scheme, ratio: float, calibration: Calibration | None, progress: Progress
) -> Iterable[Weight]:
    """Layers that would lose the largest share of their output, until the others are a ``ratio`` of all weights."""
    weights = list(checkpoint.linear)
    suffering: dict[str, float] = {}
    for index, weight in enumerate(weights):
        progress("choosing layers for 8 bits", index, len(weights))
        rows = weight.float32(slice(None, None, _SAMPLED))
        rounded = round_rows(rows, scheme, calibration.of(weight) if calibration else None)
        suffering[weight.name] = rounded.lost / rounded.whole if rounded.whole else 0.0
    low = sum(weight.raw.size for weight in weights)
    limit = ratio * low
    for weight in sorted(weights, key=lambda weight: suffering[weight.name], reverse=True):
        if low <= limit:
            return
        low -= weight.raw.size
        yield weight

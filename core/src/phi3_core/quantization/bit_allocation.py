"""Bit allocation: the scheme, importance and balancing factors of each weight, chosen before any weight is rounded.

The result does not depend on the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from attrs import field, frozen

from phi3_core import textfiles
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.safetensors import Floats, Weight
from phi3_core.paths import read_json
from phi3_core.store.derived import derived_folder
from phi3_core.store.manifest import NAME
from phi3_core.values import Progress

from .calibration import Calibration, calibration_for
from .importance import Importance
from .rounding import relative_output_error, round_rows
from .scales import Scheme

_SAMPLED = 16
"""Every 16th row of a weight is rounded to estimate the layer's output error."""


@frozen(kw_only=True)
class RoundingPlan:
    """How to round each weight of a checkpoint. All mappings have the weights' names as keys."""

    schemes: Mapping[str, Scheme] = field(factory=dict)
    """The scheme of each weight; the others keep float16."""
    importance: Mapping[str, Importance] = field(factory=dict)
    """The importance of the inputs, where known."""
    factors: Mapping[str, Floats] = field(factory=dict)
    """Factors of a weight's rows, ``[outputs]``, which divide its outputs by the balance of the layer they feed."""

    def norm(self, weight: Weight, following: Weight) -> Floats:
        """Return the weights of a norm, divided by the balance of the linear layer ``following`` it."""
        importance = self.importance.get(following.name)
        values = weight.float32()
        return values if importance is None or importance.balance is None else values / importance.balance


def stored_counter(checkpoint: Checkpoint, plan: RoundingPlan, progress: Progress) -> Callable[[Weight], None]:
    """Return a function to call with each weight that has been stored, which reports progress in parameters."""
    stage = "rounding weights" if plan.schemes else "preparing weights"
    done = 0

    def stored(weight: Weight) -> None:
        nonlocal done
        done = min(done + weight.raw.size, checkpoint.parameters)  # tied weights may be stored twice
        progress(stage, done, checkpoint.parameters)

    return stored


def read_calibration(checkpoint: Checkpoint, given: str | None, progress: Progress) -> Calibration | None:
    """Return the calibration that a recipe asks for, or None if it asks for none.

    Args:
        checkpoint: the original weights.
        given: a text file, a saved calibration (``.npz``), ``none``, or None for the built-in text.
        progress: called as the work proceeds.

    Raises:
        ModelError: the saved calibration is damaged, or the checkpoint is.
        UsageError: the text file cannot be read or is empty.
    """
    if given == "none":
        return None
    manifest = read_json(checkpoint.path / NAME)
    # Beside other data derived from the source, so that it is removed together with the source.
    digest = manifest.get("digest") if isinstance(manifest, dict) else None
    kept = derived_folder("core", str(digest or "calibration"), "calibration")
    if given is None:
        return calibration_for(checkpoint, cache=kept, progress=progress)
    path = Path(given)
    if path.suffix == ".npz":
        return Calibration.load(path)
    text = textfiles.read(path, "the calibration text")
    return calibration_for(checkpoint, text=text, cache=kept, progress=progress)


def make_plan(checkpoint: Checkpoint, schemes: Mapping[str, Scheme], calibration: Calibration | None) -> RoundingPlan:
    """Return the plan for the given schemes.

    With a calibration it contains the importance of all inputs, and 4-bit weights are balanced where dividing their
    inputs costs nothing: after a norm, and in the down projection. Weights that their schemes hold as they are have
    neither.
    """
    if calibration is None:
        return RoundingPlan(schemes=schemes)
    weights = (*checkpoint.linear, checkpoint.head)
    held = {weight.name for weight in weights if weight.name in schemes and schemes[weight.name].holds(weight)}
    importance = {weight.name: calibration.of(weight) for weight in weights if weight.name not in held}
    factors: dict[str, Floats] = {}
    for layer in checkpoint.layers:
        # The balance of down would change the rows of gate and up.
        fixed = held | ({layer.down.name} if layer.gate_up.name in held else set())
        for weight in (layer.qkv, layer.gate_up, layer.down):
            if weight.name not in fixed and schemes[weight.name].bits == 4:
                importance[weight.name] = importance[weight.name].balanced()
        down = importance.get(layer.down.name)
        if down is not None and (balance := down.balance) is not None:
            # The inputs of down are gate * up, so its balance divides the rows of up; those of gate stay.
            factors[layer.gate_up.name] = np.concatenate([np.ones_like(balance), 1 / balance])
    return RoundingPlan(schemes=schemes, importance=importance, factors=factors)


def layers_kept_at_8_bits(
    checkpoint: Checkpoint, scheme: Scheme, ratio: float, calibration: Calibration | None, progress: Progress
) -> Iterator[Weight]:
    """Yield the weights to keep at 8 bits, those with the largest relative output error first.

    Args:
        checkpoint: the original weights.
        scheme: the scheme of the other linear layers.
        ratio: the share of the linear layers' parameters that get ``scheme``, between 0 and 1.
        calibration: weighs the errors; None if all inputs count the same.
        progress: called as the work proceeds.
    """
    weights = list(checkpoint.linear)
    errors: dict[str, float] = {}
    for index, weight in enumerate(weights):
        progress("choosing layers for 8 bits", index, len(weights))
        rows = weight.float32(slice(None, None, _SAMPLED))
        importance = calibration.of(weight) if calibration else None
        errors[weight.name] = relative_output_error(rows, round_rows(rows, scheme, importance), importance)
    low = sum(weight.raw.size for weight in weights)
    limit = ratio * low
    for weight in sorted(weights, key=lambda weight: errors[weight.name], reverse=True):
        if low <= limit:
            return
        low -= weight.raw.size
        yield weight

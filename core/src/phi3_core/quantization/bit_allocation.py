"""What is decided about a checkpoint's weights before the first one is rounded, alike for every engine's graph.

Which scheme each weight gets, what its inputs are like, and where the factors go that make rounding easier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from attrs import field, frozen

from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.safetensors import Floats, Weight
from phi3_core.errors import UsageError
from phi3_core.paths import read_json
from phi3_core.store.derived import derived_folder
from phi3_core.store.manifest import NAME
from phi3_core.values import Progress

from .calibration import Calibration, calibration_for
from .importance import Importance
from .rounding import relative_output_error, round_rows
from .scales import Scheme

_SAMPLED = 16
"""One row in so many is rounded to see how much a layer suffers."""


@frozen(kw_only=True)
class RoundingPlan:
    """How each weight is stored: a scheme by its name; those that are not named keep half precision."""

    schemes: Mapping[str, Scheme] = field(factory=dict)
    importance: Mapping[str, Importance] = field(factory=dict)
    """Of the inputs, by the weight's name, for those where it is known."""
    factors: Mapping[str, Floats] = field(factory=dict)
    """On a weight's outputs, ``[outputs]``, where they are divided for the sake of the layer that takes them in."""

    def norm(self, weight: Weight, following: Weight) -> Floats:
        """A norm's weights, divided by the balance of the linear layer that follows."""
        importance = self.importance.get(following.name)
        values = weight.float32()
        return values if importance is None or importance.balance is None else values / importance.balance


def stored_counter(checkpoint: Checkpoint, plan: RoundingPlan, progress: Progress) -> Callable[[Weight], None]:
    """What is called with each weight that has been stored, and says how many there are still to come."""
    stage = "rounding weights" if plan.schemes else "preparing weights"
    done = 0

    def stored(weight: Weight) -> None:
        nonlocal done
        done = min(done + weight.raw.size, checkpoint.parameters)  # tied weights may be stored twice
        progress(stage, done, checkpoint.parameters)

    return stored


def read_calibration(checkpoint: Checkpoint, given: str | None, progress: Progress) -> Calibration | None:
    """The calibration that a recipe names: a file of text or moments, ``none``, or None for the built-in text.

    Raises:
        UsageError: the file cannot be read.
    """
    if given == "none":
        return None
    manifest = read_json(checkpoint.path / NAME)
    # With what is derived from the source in the store, so that it goes when the source goes; else with all others.
    digest = manifest.get("digest") if isinstance(manifest, dict) else None
    kept = derived_folder("core", str(digest or "calibration"), "calibration")
    if given is None:
        return calibration_for(checkpoint, cache=kept, progress=progress)
    path = Path(given)
    if path.suffix == ".npz":
        return Calibration.load(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UsageError(f"the calibration text {path} cannot be read: {error}") from error
    return calibration_for(checkpoint, text=text, cache=kept, progress=progress)


def make_plan(checkpoint: Checkpoint, schemes: Mapping[str, Scheme], calibration: Calibration | None) -> RoundingPlan:
    """Complete the schemes by what the calibration found, balanced where a division of the inputs costs nothing."""
    if calibration is None:
        return RoundingPlan(schemes=schemes)
    importance = {weight.name: calibration.of(weight) for weight in (*checkpoint.linear, checkpoint.head)}
    factors: dict[str, Floats] = {}
    for layer in checkpoint.layers:
        for weight in (layer.qkv, layer.gate_up, layer.down):
            if schemes[weight.name].bits == 4:
                importance[weight.name] = importance[weight.name].balanced()
        balance = importance[layer.down.name].balance
        if balance is not None:
            # What the inputs of down are divided by goes into the rows of up, whose outputs they are.
            factors[layer.gate_up.name] = np.concatenate([np.ones_like(balance), 1 / balance])
    return RoundingPlan(schemes=schemes, importance=importance, factors=factors)


def layers_kept_at_8_bits(
    checkpoint: Checkpoint, scheme: Scheme, ratio: float, calibration: Calibration | None, progress: Progress
) -> Iterator[Weight]:
    """Layers that would lose the largest share of their output, until the others are a ``ratio`` of all weights."""
    weights = list(checkpoint.linear)
    suffering: dict[str, float] = {}
    for index, weight in enumerate(weights):
        progress("choosing layers for 8 bits", index, len(weights))
        rows = weight.float32(slice(None, None, _SAMPLED))
        importance = calibration.of(weight) if calibration else None
        suffering[weight.name] = relative_output_error(rows, round_rows(rows, scheme, importance), importance)
    low = sum(weight.raw.size for weight in weights)
    limit = ratio * low
    for weight in sorted(weights, key=lambda weight: suffering[weight.name], reverse=True):
        if low <= limit:
            return
        low -= weight.raw.size
        yield weight

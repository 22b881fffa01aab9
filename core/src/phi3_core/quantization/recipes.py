"""Recipes and their plans: one scheme for linear layers, 8 bits for the embedding and the output layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

from attrs import frozen

from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.safetensors import Weight
from phi3_core.errors import UsageError
from phi3_core.values import Progress, Recipe

from .bit_allocation import RoundingPlan, layers_kept_at_8_bits, make_plan, read_calibration
from .scales import Scheme


@frozen(kw_only=True)
class RoundingSettings:
    """A recipe with all defaults filled in."""

    linear: Scheme | None
    """The scheme of the decoder's linear layers; None keeps all weights in float16."""
    ratio: float
    """The share of the linear layers' parameters that get this scheme, between 0 and 1; the others get 8 bits."""
    calibration: str | None
    """A text file, a saved calibration (``.npz``), ``none``, or None for the built-in text."""

    def plan(
        self,
        checkpoint: Checkpoint,
        *,
        outer: Iterable[Weight],
        int8_scheme: Callable[[Weight], Scheme],
        progress: Progress,
    ) -> RoundingPlan:
        """Return the rounding plan of a checkpoint.

        Args:
            checkpoint: the original weights.
            outer: weights that always get 8 bits, such as the embedding and the output layer.
            int8_scheme: returns the 8-bit scheme of a weight.
            progress: called as the work proceeds.

        Raises:
            ModelError: the saved calibration is damaged.
            UsageError: the calibration text cannot be read.
        """
        low = self.linear
        if low is None:
            return RoundingPlan()
        rounded = low.bits == 4 and not all(low.holds(weight) for weight in checkpoint.linear)
        calibration = read_calibration(checkpoint, self.calibration, progress) if rounded else None
        wide = [*outer]
        if self.ratio < 1:
            wide += layers_kept_at_8_bits(checkpoint, low, self.ratio, calibration, progress)
        schemes = {weight.name: low for weight in checkpoint.linear}
        schemes |= {weight.name: int8_scheme(weight) for weight in wide}
        return make_plan(checkpoint, schemes, calibration)

    def size_with_ratio(self, size: int) -> int:
        """Return about what a model takes, given its size with all linear layers in the recipe's scheme.

        Both are in bytes. A layer kept at 8 bits counts twice.
        """
        return size if self.ratio == 1 else round(size * (2 - self.ratio))


def check_extra(backend: str, recipe: Recipe, known: Collection[str] = ("calibration", "exporter")) -> None:
    """Check the backend-specific settings of a recipe.

    Raises:
        UsageError: a setting is not ``known``, or there is no such exporter.
    """
    unknown = set(recipe.extra) - set(known)
    if unknown:
        raise UsageError(
            f"{backend} knows no quantization setting {', '.join(sorted(unknown))}", hint="use calibration"
        )
    exporter = recipe.extra.get("exporter", "builtin")
    if exporter not in {"builtin", "reference"}:
        raise UsageError(f"{backend} knows no exporter {exporter!r}", hint="--exporter builtin or reference")


def wants_reference(recipe: Recipe) -> bool:
    """Return whether a recipe asks for the reference exporter."""
    return recipe.extra.get("exporter") == "reference"


def check_recipe(recipe: Recipe, *, grouped: Collection[str]) -> None:
    """Check the ratio and the group size of a recipe.

    Args:
        recipe: the recipe.
        grouped: the precisions that support groups.

    Raises:
        UsageError: there is a ratio without int4, or a group size with a precision that does not support groups.
    """
    if recipe.precision != "int4" and recipe.ratio != 1:
        raise UsageError(f"a ratio of {recipe.ratio} needs int4: it is the share of layers that get 4 bits")
    if recipe.precision not in grouped and recipe.group_size not in {None, -1}:
        raise UsageError(f"{recipe.precision} has no groups of {recipe.group_size}", hint="leave the group size out")


def check_even_inputs(weights: Iterable[Weight]) -> None:
    """Check that 4-bit integers of the weights can be packed in pairs along the inputs.

    Raises:
        UsageError: a weight has an odd number of inputs.
    """
    for weight in weights:
        if weight.shape[1] % 2:
            raise UsageError(f"{weight.name} has {weight.shape[1]} inputs; int4 needs an even number")


def own_group_size(weights: Iterable[Weight], bits: int) -> int | None:
    """Return the group size at which most of the weights, by parameters, keep the integers they were quantized to.

    None if they were not quantized to ``bits``, or in a form that no scheme holds.
    """
    sizes: Counter[int | None] = Counter()
    for weight in weights:
        sizes[weight.grid.group_size if weight.grid and weight.grid.bits == bits else None] += weight.raw.size
    return sizes.most_common(1)[0][0]


def fitting_group_size(weights: Iterable[Weight], sizes: Sequence[int]) -> int | None:
    """Return the first of ``sizes`` that divides the number of inputs of all ``weights``, or None."""
    widths = {weight.shape[1] for weight in weights}
    return next((size for size in sizes if not any(width % size for width in widths)), None)

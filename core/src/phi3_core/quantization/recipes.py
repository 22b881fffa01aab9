"""From a recipe to a plan, for backends that round linear layers to one scheme and what lies around them to 8 bits."""

from __future__ import annotations

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
    """A recipe with every choice made."""

    linear: Scheme | None
    """For the decoder's linear layers; None keeps everything in half precision."""
    ratio: float
    """The share of the linear layers' weights that keep that scheme; the others get 8 bits."""
    calibration: str | None
    """A file, ``none``, or None for the built-in text."""

    def plan(
        self,
        checkpoint: Checkpoint,
        *,
        outer: Iterable[Weight],
        int8_scheme: Callable[[Weight], Scheme],
        progress: Progress,
    ) -> RoundingPlan:
        """Give ``outer`` weights 8 bits, and the linear layers beyond the ratio that suffer most.

        Raises:
            UsageError: the calibration cannot be read.
        """
        low = self.linear
        if low is None:
            return RoundingPlan()
        calibration = read_calibration(checkpoint, self.calibration, progress) if low.bits == 4 else None
        wide = [*outer]
        if self.ratio < 1:
            wide += layers_kept_at_8_bits(checkpoint, low, self.ratio, calibration, progress)
        schemes = {weight.name: low for weight in checkpoint.linear}
        schemes |= {weight.name: int8_scheme(weight) for weight in wide}
        return make_plan(checkpoint, schemes, calibration)


def check_extra(backend: str, recipe: Recipe, known: Collection[str] = ("calibration", "exporter")) -> None:
    """Refuse settings that are not ``known``, and an exporter that there is not.

    Raises:
        UsageError: naming it.
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
    """Whether the recipe asks for the reference exporter."""
    return recipe.extra.get("exporter") == "reference"


def check_recipe(recipe: Recipe, *, grouped: Collection[str]) -> None:
    """Refuse a ratio where nothing gets 4 bits, and groups in a precision that is not one of the ``grouped``.

    Raises:
        UsageError: naming it.
    """
    if recipe.precision != "int4" and recipe.ratio != 1:
        raise UsageError(f"a ratio of {recipe.ratio} needs int4: it is the share of layers that get 4 bits")
    if recipe.precision not in grouped and recipe.group_size not in {None, -1}:
        raise UsageError(f"{recipe.precision} has no groups of {recipe.group_size}", hint="leave the group size out")


def check_even_inputs(weights: Iterable[Weight]) -> None:
    """Refuse weights that cannot be packed two a byte along their inputs.

    Raises:
        UsageError: naming the first.
    """
    for weight in weights:
        if weight.shape[1] % 2:
            raise UsageError(f"{weight.name} has {weight.shape[1]} inputs; int4 needs an even number")


def fitting_group_size(weights: Iterable[Weight], sizes: Sequence[int]) -> int | None:
    """The first of ``sizes`` that divides the inputs of all ``weights``, if one does."""
    widths = {weight.shape[1] for weight in weights}
    return next((size for size in sizes if not any(width % size for width in widths)), None)

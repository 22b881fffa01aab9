"""Have a backend quantize original weights into the store, with what is known about them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_core.errors import ModelError, UsageError
from phi3_core.store import manifest, sidecars
from phi3_core.store.store import Store
from phi3_core.values import Progress, Recipe, Source, to_plain

from .obtained import Obtained, Unobtainable
from .request import Asked, Need

logger = logging.getLogger("phi3_core")

SILENCE_LIMIT_S = 900.0


def no_original(need: Need) -> UsageError:
    return UsageError(
        f"{need.reference.path or need.reference.name} has no original weights to quantize",
        hint="name a checkpoint with safetensors",
    )


def check(recipe: Recipe) -> None:
    """Refuse what means nothing for any backend, before gigabytes are fetched."""
    if recipe.precision != "int4" and recipe.ratio != 1:
        raise UsageError(
            f"a ratio of {recipe.ratio} needs int4: it is the share of layers that get 4 bits", hint="leave --ratio out"
        )
    if recipe.precision == "fp16":
        for what, given in (
            (f"groups of {recipe.group_size}", recipe.group_size not in {None, -1}),
            ("symmetry", recipe.symmetric is not None),
            ("calibration", "calibration" in recipe.extra),
        ):
            if given:
                raise UsageError(f"fp16 has no {what}: it is not rounded", hint="leave it out, or take int4")


def _recorded(recipe: Recipe) -> dict[str, Any]:
    """A recipe as manifests have it: a text to calibrate with by its hash, not by where it lies on this machine."""
    plain: dict[str, Any] = to_plain(recipe)
    calibration = recipe.extra.get("calibration", "none")
    if calibration != "none":
        try:
            plain["extra"] = {**plain["extra"], "calibration": f"sha256:{manifest.sha256(Path(calibration))}"}
        except OSError as error:
            raise UsageError(
                f"the calibration {calibration} cannot be read: {(error.strerror or str(error)).lower()}",
                hint="name a UTF-8 text file",
            ) from error
    return plain


def quantize(need: Need, source: Source, store: Store, *, worker: Asked, progress: Progress) -> Obtained:
    """What the backend makes of ``source``, unless the store has it already: of the same weights, by the same recipe.

    Raises:
        Unobtainable: the backend does not quantize, or not like that.
        ModelError: the original is damaged, what was made of it is noise, or there is no room for it.
    """
    recipe = need.recipe or Recipe(precision=need.precisions[0])
    recorded = _recorded(recipe)

    def wanted(found: Mapping[str, Any]) -> bool:
        made_of = (found.get("source", {}).get("revision"), found.get("recipe"))
        unchecked = need.check and found.get("checked") is False
        return made_of == (source.revision, recorded) and not unchecked

    form = need.form(recipe.precision)
    old = store.artifact(need.name, form)
    if old is not None and wanted(old.manifest):
        return Obtained(artifact=old, text=old.path, how="from the store, where it is already")
    if "quantize" not in worker.hooks:
        raise Unobtainable(f"{need.device.backend} does not quantize", hint="phi3 plugins shows who does")

    def fill(folder: Path) -> Mapping[str, Any]:
        tools = worker.call(
            "quantize",
            limit_s=SILENCE_LIMIT_S,
            progress=progress,
            source=source,
            device=need.device,
            recipe=recipe,
            output=folder,
        )
        sidecars.copy(source.path, folder)
        return {
            "source": {"model": source.model, "revision": source.revision},
            "recipe": recorded,
            "tools": {worker.backend.distribution: worker.backend.version, **(tools or {})},
            "quality": _quality(need, source, folder, precision=recipe.precision, worker=worker, progress=progress),
            "checked": need.check,
        }

    artifact = store.make_artifact(need.name, form, fill, wanted=wanted)
    return Obtained(artifact=artifact, text=artifact.path, how="quantized from the original weights")


def _quality(
    need: Need, source: Source, folder: Path, *, precision: str, worker: Asked, progress: Progress
) -> dict[str, Any] | None:
    """The report that goes into the manifest, if the backend can be asked for logits."""
    if not need.check or "logits" not in worker.hooks:
        return None
    from phi3_core.checkpoint.checkpoint import Checkpoint
    from phi3_core.evaluation.evaluate import check_quality

    try:
        checkpoint = Checkpoint.open(source.path)
    except ModelError as error:  # a backend may know more shapes than core does
        logger.warning("the quality is not measured, since core cannot run the original: %s", error.message)
        return None
    found = check_quality(folder, precision, need.device, worker.backend, checkpoint, progress)
    return dict(to_plain(found))

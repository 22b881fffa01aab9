"""Let a backend quantize original weights into the store, and record recipe, tools and quality."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_core.checking.known import MANIFEST_KEY, to_manifest
from phi3_core.checkpoint.contents import unusable
from phi3_core.checkpoint.dtypes import check_floating
from phi3_core.disk import reason
from phi3_core.errors import ModelError, NoArtifactError, UsageError
from phi3_core.evaluation.text import EVALUATION_TEXT
from phi3_core.plugin import fault
from phi3_core.store import manifest, sidecars
from phi3_core.store.store import Store
from phi3_core.values import Artifact, Recipe, Source, to_plain

from . import gguf_source, output
from .request import ArtifactRequest, BackendCalls, ResolvedModel

logger = logging.getLogger("phi3_core")

SILENCE_LIMIT_S = 900.0


def no_original(request: ArtifactRequest) -> UsageError | ModelError:
    """Return the error for a model that has no original weights."""
    path = request.ref.path
    if path is not None and path.is_dir():
        found = unusable(path.as_posix(), [entry.name for entry in path.iterdir() if entry.is_file()])
        if found is not None:
            return ModelError(f"{path} {found.words}", hint=found.hint)
    return UsageError(
        f"{request.ref.path or request.ref.name} has no original weights to quantize",
        hint="name a checkpoint with safetensors, or a GGUF file",
    )


def check(recipe: Recipe) -> None:
    """Check a recipe for settings that no backend supports, before gigabytes are downloaded.

    Raises:
        UsageError: the recipe has such settings.
    """
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
    """Return a recipe for the manifest, with the hash of the calibration text instead of its path."""
    plain: dict[str, Any] = to_plain(recipe)
    calibration = recipe.extra.get("calibration", "none")
    if calibration != "none":
        try:
            plain["extra"] = {**plain["extra"], "calibration": f"sha256:{manifest.sha256(Path(calibration))}"}
        except OSError as error:
            raise UsageError(
                f"the calibration {calibration} cannot be read: {reason(error)}",
                hint="name a text file",
            ) from error
    return plain


def quantize(
    request: ArtifactRequest,
    recipe: Recipe,
    source: Source,
    store: Store,
    backend: BackendCalls,
    *,
    old: Artifact | None,
) -> ResolvedModel:
    """Let the backend quantize ``source``, unless ``old`` has the same revision and recipe.

    Args:
        request: the model and the device.
        recipe: how to quantize.
        source: the original weights.
        store: the store for the artifact.
        backend: the backend that quantizes.
        old: the artifact that the store has under the same key, if any.

    Raises:
        NoArtifactError: the backend does not quantize.
        BackendError: the backend failed, or left no weights, links, or files outside of its output.
        UsageError: the backend does not support the recipe.
        ModelError: the original weights are damaged, the result is noise, or the disk is full.
    """
    recorded = _recorded(recipe)

    def wanted(found: Mapping[str, Any]) -> bool:
        made_of = (found.get("source", {}).get("revision"), found.get("recipe"))
        unchecked = request.check_quality and found.get("checked") is False
        return made_of == (source.revision, recorded) and not unchecked

    if old is not None and wanted(old.manifest):
        return ResolvedModel(artifact=old, tokenizer_dir=old.path, origin="already in the store")
    if "quantize" not in backend.hooks:
        raise NoArtifactError(f"{request.device.backend} does not quantize", hint="phi3 plugins lists backends that do")
    check_floating(source.path)
    _check_text(request, source, measured=_is_measured(request, backend))

    def fill(folder: Path) -> Mapping[str, Any]:
        around = output.Surroundings.of(folder, source.path)
        tools = backend.call(
            "quantize",
            limit_s=SILENCE_LIMIT_S,
            progress=request.progress,
            source=source,
            device=request.device,
            recipe=recipe,
            output=folder,
        )
        if (words := output.problem(around)) is not None:
            raise fault("quantize", backend.backend, words)
        sidecars.copy_sidecars(source.path, folder)
        return {
            "source": {"model": source.model, "revision": source.revision, **gguf_source.recorded(source.path)},
            "recipe": recorded,
            "tools": {backend.backend.distribution: backend.backend.version, **(tools or {})},
            **_measured(request, source, folder, recipe.precision, backend),
            "checked": request.check_quality,
        }

    artifact = store.make_artifact(request.ref.store_name, request.key(recipe.precision), fill, wanted=wanted)
    return ResolvedModel(artifact=artifact, tokenizer_dir=artifact.path, origin="quantized from the original weights")


def _check_text(request: ArtifactRequest, source: Source, *, measured: bool) -> None:
    """Check what the weights are used with before the work, which can take hours.

    That is the tokenizer, the chat template if the model is to answer, and the text that the quality is measured with.

    Raises:
        ModelError: a file is damaged or missing, or the weights lack a token.
    """
    from phi3_core.text.tokenizer import Tokenizer  # start-up: not needed for stored models

    if request.chat or measured or (source.path / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_folder(source.path, subject=str(request.ref.path or request.ref.name))
        if request.chat:
            tokenizer.check_chat()
        if measured:
            tokenizer.encode(EVALUATION_TEXT)


def _is_measured(request: ArtifactRequest, backend: BackendCalls) -> bool:
    return request.check_quality and "logits" in backend.hooks


def _measured(
    request: ArtifactRequest, source: Source, folder: Path, precision: str, backend: BackendCalls
) -> dict[str, Any]:
    """Return the quality report and the known answers for the manifest.

    There are none if they are not wanted, or the backend has no logits.
    """
    if not _is_measured(request, backend):
        return {"quality": None}
    # start-up: numpy, needed only for measuring
    from phi3_core.checkpoint.checkpoint import Checkpoint
    from phi3_core.evaluation.evaluate import check_quality

    try:
        checkpoint = Checkpoint.open(source.path)
    except ModelError as error:  # a backend may support more architectures than core
        logger.warning("the quality is not measured, since core cannot run the original: %s", error.message)
        return {"quality": None}
    found, known = check_quality(folder, precision, request.device, backend.backend, checkpoint, request.progress)
    answers = {} if known is None else {MANIFEST_KEY: to_manifest(known)}
    return {"quality": dict(to_plain(found)), **answers}

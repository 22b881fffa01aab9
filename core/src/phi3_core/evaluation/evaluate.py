"""How good an artifact is: its logits over a text, held against those of the original weights.

The engine runs in a worker of its own, and this process computes the reference.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.forward import affordable_tokens, logits
from phi3_core.config import time_limit
from phi3_core.errors import ModelError, UsageError
from phi3_core.paths import home
from phi3_core.plugin import Backend
from phi3_core.text.tokenizer import Tokenizer
from phi3_core.values import Artifact, Device, Progress
from phi3_core.worker.pool import WorkerPool

from .metrics import Quality, measure
from .text import EVALUATION_TEXT

MOST_TOKENS = 512


def evaluation_ids(tokenizer_dir: Path, text: str | None = None) -> list[int]:
    """The ids of the built-in text, or of another, by the model's own tokenizer; at most 512.

    Raises:
        UsageError: the text is too short.
    """
    ids = Tokenizer.from_folder(tokenizer_dir).encode(EVALUATION_TEXT if text is None else text)[:MOST_TOKENS]
    if len(ids) < 2:
        raise UsageError("the text to evaluate with is too short", hint="use some paragraphs")
    return ids


def evaluate(
    artifact: Artifact,
    device: Device,
    backend: Backend,
    *,
    reference: Checkpoint,
    ids: list[int],
    progress: Progress,
    options: Mapping[str, str] | None = None,
) -> Quality:
    """Compare an artifact on a device with its original, ``reference``, over ``ids``.

    Raises:
        BackendError: the engine failed, or the backend does not give logits.
        ModelError: the reference is damaged.
    """
    with WorkerPool().take(backend) as worker:
        worker.begin("load", artifact=artifact, device=device, options=options or {}, purpose="evaluation")
        worker.begin("logits", ids=ids)
        # Side by side, unless both would want the same processors: taking turns they are done sooner then.
        if device.kind != "cpu":
            expected = logits(reference, ids, progress=progress)
        progress(f"running the text on {device}", None, None)
        given = worker.finish(time_limit("load"))
    if device.kind == "cpu":
        expected = logits(reference, ids, progress=progress)
    return measure(ids, expected, given)


def check_quality(  # noqa: PLR0917 - each is a fact of the situation
    folder: Path, precision: str, device: Device, backend: Backend, source: Checkpoint, progress: Progress
) -> Quality:
    """The quality of an artifact that is still being made; of large models over the text's beginning only.

    Raises:
        ModelError: it answers like noise.
    """
    unpublished = f"check-{secrets.token_hex(5)}"
    artifact = Artifact(path=folder, backend=backend.name, precision=precision, manifest={"digest": unpublished})
    try:
        ids = evaluation_ids(folder)[: affordable_tokens(source)]
        found = evaluate(artifact, device, backend, reference=source, ids=ids, progress=progress)
    finally:
        shutil.rmtree(home() / "engines" / unpublished, ignore_errors=True)
    if found.is_noise:
        raise ModelError(
            f"what came out answers like noise: it agrees with the original in {found.top1_agreement:.0%} of the "
            f"positions",
            hint="--no-check if the weights are noise themselves",
        )
    return found

"""Evaluate an artifact: compare its logits over a text with those of the original weights.

The engine runs in a worker process; this process computes the reference.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.forward import affordable_tokens, logits
from phi3_core.config import time_limit
from phi3_core.errors import ModelError, UsageError
from phi3_core.files import discard_tree
from phi3_core.paths import home
from phi3_core.plugin import Backend, check_hook
from phi3_core.text.settings import TextSettings
from phi3_core.text.tokenizer import Tokenizer
from phi3_core.values import Artifact, Device, Progress
from phi3_core.worker.pool import WorkerPool

from .metrics import Quality, check_vocabularies, measure
from .text import EVALUATION_TEXT

MOST_TOKENS = 512
_LONGEST_TOKEN = 256
"""More characters than a token has: what is behind those of all tokens is not encoded."""


def evaluation_ids(tokenizer_dir: Path, text: str | None = None, *, subject: str | None = None) -> list[int]:
    """Return the token ids of a text, at most 512.

    Args:
        tokenizer_dir: the folder with the model's tokenizer.
        text: the text; None for the built-in one.
        subject: what the folder belongs to, for error messages; the folder itself by default.

    Raises:
        UsageError: the text is too short.
        ModelError: the tokenizer is damaged, or the weights lack one of the tokens.
    """
    text = (EVALUATION_TEXT if text is None else text)[: MOST_TOKENS * _LONGEST_TOKEN]
    ids = Tokenizer.from_folder(tokenizer_dir, subject=subject).encode(text)[:MOST_TOKENS]
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
    """Compare an artifact on a device with its original weights.

    Args:
        artifact: the artifact to evaluate.
        device: the device to run it on.
        backend: the backend of the device.
        reference: the original weights.
        ids: token ids of the text.
        progress: called as the work proceeds.
        options: engine options.

    Raises:
        BackendError: the engine failed, or the backend does not return logits.
        ModelError: the reference is damaged.
        UsageError: the vocabularies differ, or there are fewer than two ids.
    """
    vocabulary = TextSettings.read(artifact.path).embedding_rows if artifact.path.is_dir() else None
    check_vocabularies(reference.architecture.vocabulary, vocabulary)
    with WorkerPool().take(backend) as worker:
        check_hook("logits", backend, worker.hooks)
        worker.begin("load", artifact=artifact, device=device, options=options or {}, purpose="evaluation")
        worker.begin("logits", ids=ids, vocabulary=vocabulary)
        # Concurrently, unless both use the CPU: then running one after the other takes less time.
        if device.kind != "cpu":
            expected = logits(reference, ids, progress=progress)
        progress(f"running the text on {device}", None, None)
        given = worker.finish(time_limit("load"))
    if device.kind == "cpu":
        expected = logits(reference, ids, progress=progress)
    return measure(ids, expected, given)


def check_quality(  # noqa: PLR0917 - all are required
    folder: Path, precision: str, device: Device, backend: Backend, source: Checkpoint, progress: Progress
) -> Quality:
    """Return the quality of an artifact before it is published.

    Large models are evaluated on the beginning of the built-in text only (:func:`affordable_tokens`).

    Args:
        folder: the unpublished artifact.
        precision: its precision.
        device: the device to run it on.
        backend: the backend of the device.
        source: the original weights.
        progress: called as the work proceeds.

    Raises:
        ModelError: the artifact's output is noise.
    """
    unpublished = f"check-{secrets.token_hex(5)}"
    artifact = Artifact(path=folder, backend=backend.name, precision=precision, manifest={"digest": unpublished})
    try:
        ids = evaluation_ids(folder, subject=str(source.path))[: affordable_tokens(source)]
        found = evaluate(artifact, device, backend, reference=source, ids=ids, progress=progress)
    finally:
        discard_tree(home() / "engines" / unpublished)
    if found.is_noise:
        raise ModelError(
            f"what came out answers like noise: {found.words}",
            hint="phi3 quantize --no-check if the weights are noise themselves",
        )
    return found

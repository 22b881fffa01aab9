"""Evaluate an artifact: compare its logits over a text with those of a reference.

Engines run in worker processes. The reference is the original weights, which this process runs, or another engine.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from attrs import field, frozen

from phi3_core.checking.choose import choose
from phi3_core.checking.known import KnownAnswers
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.forward import affordable_tokens, logits
from phi3_core.config import time_limit
from phi3_core.errors import BackendError, ModelError, UsageError
from phi3_core.files import discard_tree
from phi3_core.paths import home
from phi3_core.plugin import Backend, check_hook, name_device
from phi3_core.text.settings import TextSettings
from phi3_core.text.tokenizer import Tokenizer
from phi3_core.values import Artifact, Device, Progress
from phi3_core.worker.pool import WorkerPool

from .metrics import Logits, Quality, check_vocabularies, measure
from .text import EVALUATION_TEXT

MOST_TOKENS = 512
_LONGEST_TOKEN = 256
"""More characters than a token has: what is behind those of all tokens is not encoded."""


@frozen(kw_only=True)
class EngineLogits:
    """The logits of an artifact on a device."""

    artifact: Artifact
    device: Device
    backend: Backend
    options: Mapping[str, str] = field(factory=dict)
    """Options of the engine."""

    @property
    def vocabulary(self) -> int | None:
        """The size of the vocabulary, if the artifact's ``config.json`` states it."""
        path = self.artifact.path
        return TextSettings.read(path).embedding_rows if path.is_dir() else None


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
    engine: EngineLogits,
    *,
    reference: Checkpoint | EngineLogits,
    ids: list[int],
    progress: Progress,
    examine: Callable[[Logits], None] = lambda _: None,
) -> Quality:
    """Compare an artifact on a device with a reference.

    Args:
        engine: the artifact to evaluate.
        reference: the original weights, or another engine.
        ids: token ids of the text.
        progress: called as the work proceeds.
        examine: called with the logits of the artifact.

    Raises:
        BackendError: an engine failed, or its backend does not return logits. The message names the device.
        ModelError: the reference is damaged.
        UsageError: the vocabularies differ, or there are fewer than two ids.
    """
    if isinstance(reference, Checkpoint):
        check_vocabularies(reference.architecture.vocabulary, engine.vocabulary)
    with _running(engine, ids) as finish:
        # Meanwhile, unless both use the CPU: then running one after the other takes less time.
        if isinstance(reference, Checkpoint) and engine.device.kind != "cpu":
            expected = logits(reference, ids, progress=progress)
            given = finish(progress)
            examine(given)
            return measure(ids, expected, given)
        given = finish(progress)
        examine(given)
    if isinstance(reference, Checkpoint):
        return measure(ids, logits(reference, ids, progress=progress), given)
    with _running(reference, ids) as finish:  # not beside the other engine: two may not fit the memory
        return measure(ids, finish(progress), given)


@contextlib.contextmanager
def _running(engine: EngineLogits, ids: list[int]) -> Iterator[Callable[[Progress], Logits]]:
    """Load an engine in a worker and start its logits. What is yielded waits for them, and returns them."""

    def finish(progress: Progress) -> Logits:
        progress(f"running the text on {engine.device}", None, None)
        found: Logits = worker.finish(time_limit("load"), progress)
        return found

    try:
        with WorkerPool().take(engine.backend) as worker:
            check_hook("logits", engine.backend, worker.hooks)
            given = {"artifact": engine.artifact, "device": engine.device, "options": engine.options}
            worker.begin("load", **given, purpose="evaluation")
            worker.begin("logits", ids=ids, vocabulary=engine.vocabulary)
            yield finish
    except BackendError as error:
        name_device(error, engine.device)
        raise


def check_quality(  # noqa: PLR0917 - all are required
    folder: Path, precision: str, device: Device, backend: Backend, source: Checkpoint, progress: Progress
) -> tuple[Quality, KnownAnswers | None]:
    """Return the quality of an artifact before it is published, and what it is known to answer.

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
    known: list[KnownAnswers | None] = []
    unpublished = f"check-{secrets.token_hex(5)}"
    artifact = Artifact(path=folder, backend=backend.name, precision=precision, manifest={"digest": unpublished})
    try:
        ids = evaluation_ids(folder, subject=str(source.path))[: affordable_tokens(source)]
        engine = EngineLogits(artifact=artifact, device=device, backend=backend)
        examine = functools.partial(_choose, ids, known)
        found = evaluate(engine, reference=source, ids=ids, progress=progress, examine=examine)
    finally:
        discard_tree(home() / "engines" / unpublished)
    if found.is_noise:
        raise ModelError(
            f"what came out answers like noise: {found.words}",
            hint="phi3 quantize --no-check if the weights are noise themselves",
        )
    return found, known[0]


def _choose(ids: list[int], known: list[KnownAnswers | None], logits: Logits) -> None:
    known.append(choose(ids, logits))

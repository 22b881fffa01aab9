"""Load a resolved model on a device: the engine in a worker process, the tokenizer in this one."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

from attrs import field, frozen

from .activity.announcement import Announcement
from .activity.running import RunningEngine
from .checking.check import Check, Reference
from .config import debugged_hook, time_limit
from .errors import BackendError
from .figures import failures
from .figures.conditions import LoadedArtifact
from .figures.recorder import Limits, Recorder
from .models.catalogue import CATALOGUE
from .models.fit import usable_context
from .selection import Candidate
from .store.entry import touch
from .values import Device

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .models.ref import ModelRef
    from .models.request import ModelRequest, ResolvedModel
    from .plugin import Backend
    from .surveys import Survey
    from .text.tokenizer import Tokenizer
    from .worker.host import Worker
    from .worker.pool import WorkerPool

logger = logging.getLogger("phi3_core")


@frozen(kw_only=True, eq=False)
class LoadedEngine:
    """An engine in its worker process."""

    worker: Worker
    device: Device
    precision: str
    tokenizer: Tokenizer
    vocabulary: int | None
    """Number of token ids that there are; None if unknown."""
    context_length: int
    """Maximum number of tokens of prompt and answer together."""
    max_concurrency: int
    """Number of answers that the engine generates at once."""
    capabilities: frozenset[str] = field(converter=frozenset)
    """Optional features of the engine, such as ``json_schema``."""
    load_s: float
    """Seconds that loading the weights took."""
    is_compared: bool
    """Whether its answers were compared with known ones, and agreed, when it was loaded."""
    announcement: Announcement
    """Tells ``phi3 top`` of it."""
    recorder: Recorder | None = None
    """Takes the figures of answers; None where they would not be comparable."""

    def stall_limits(self, prompt_tokens: int) -> Limits:
        """Return the seconds after which the device counts as hung, by what it did before."""
        if self.recorder is None:
            return None, None
        lengths = {"context_length": self.context_length, "at_once": self.max_concurrency}
        return self.recorder.stall_limits(prompt_tokens, **lengths)


def load_engine(
    ref: ModelRef,
    request: ModelRequest,
    candidate: Candidate,
    resolved: ResolvedModel,
    worker: Worker,
    *,
    reference: Reference | None = None,
) -> LoadedEngine:
    """Load a resolved model on the candidate's device.

    The worker loads the weights while this process reads the tokenizer. The first time, or if the request asks for it,
    the engine is checked with known answers.

    Args:
        ref: the model.
        request: the user's request.
        candidate: the device.
        resolved: the artifact.
        worker: a worker with the device's backend.
        reference: loads the artifact on another device to compare with; by default there is none.

    Raises:
        UsageError: the engine does not accept one of the options.
        ModelError: the weights or the tokenizer are damaged.
        WrongAnswersError: the device gives wrong answers.
        BackendError: the backend failed, died, or exceeded its time limit.
    """
    device, artifact = candidate.device, resolved.artifact
    given = {"purpose": request.purpose, "prompt_tokens": request.prompt_tokens, "tokenizer": resolved.tokenizer_dir}
    options = request.options_of(device.backend)
    started = time.monotonic()
    worker.begin("load", artifact=artifact, device=device, options=options, **given)
    logger.info(
        *("%s %s, %s, on %s (%s): %s", ref.name, artifact.precision, resolved.origin),
        *(device, device.name, candidate.why),
    )
    tokenizer = _read_tokenizer(resolved.tokenizer_dir, subject=str(ref.path or ref.name))
    request.progress("loading")
    with _failures_noted(worker.backend, device):
        engine = worker.finish(time_limit("load"), request.progress)
    load_s = time.monotonic() - started
    touch(artifact.path)
    offered: int = engine["context_length"]
    context_length = usable_context(ref, device, artifact.precision, offered)
    if context_length < offered:
        logger.info("%s holds %d tokens of context, not %d", device, context_length, offered)
    loaded = LoadedArtifact(backend=worker.backend, device=device, artifact=artifact, options=options)
    is_compared = False
    if request.check_answers and debugged_hook() is None:
        check = Check(
            loaded=loaded,
            worker=worker,
            tokenizer=tokenizer,
            context_length=context_length,
            purpose=request.purpose,
            is_catalogued=ref.form == "named" and ref.name in CATALOGUE,
            prompt_tokens=request.prompt_tokens,
            reference=reference,
            anew=request.check_anew,
            progress=request.progress,
        )
        with _failures_noted(worker.backend, device):
            is_compared = check.run()
    uncomparable = options or debugged_hook() is not None
    running = RunningEngine(
        process=worker.process,
        model=ref.name,
        device=str(device),
        kind=device.kind,
        name=device.name,
        precision=artifact.precision,
        backend=worker.backend.release,
        context_length=context_length,
        max_concurrency=engine["max_concurrency"],
        since=time.time(),
    )
    return LoadedEngine(
        worker=worker,
        device=device,
        precision=artifact.precision,
        tokenizer=tokenizer,
        vocabulary=tokenizer.id_count,
        context_length=context_length,
        max_concurrency=engine["max_concurrency"],
        capabilities=engine["capabilities"],
        load_s=load_s,
        is_compared=is_compared,
        announcement=Announcement(running, worker.calls),
        recorder=None if uncomparable else Recorder(loaded, ref.store_name, load_s=load_s),
    )


@contextlib.contextmanager
def _failures_noted(backend: Backend, device: Device) -> Iterator[None]:
    """Take note of a device that fails meanwhile, which puts it last for a time."""
    try:
        yield
    except BackendError as error:
        failures.note(backend, device, error.message)
        raise


def cpu_reference(found: Survey, candidate: Candidate, resolved: ResolvedModel, pool: WorkerPool) -> Reference | None:
    """Return what loads an artifact on a CPU of the candidate's backend; None if there is none beside the candidate."""
    own = candidate.device
    offers = [offer for offer in found.offers if offer.automatic and offer.layout == candidate.layout]
    same = [offer.device for offer in offers if offer.device.kind == "cpu" and offer.device.backend == own.backend]
    if own.kind == "cpu" or not same:
        return None

    @contextlib.contextmanager
    def load() -> Iterator[Worker]:
        with pool.take(found.backend(own.backend), disposable=True) as worker:
            given: dict[str, object] = {"options": {}, "purpose": "conversation", "prompt_tokens": None}
            worker.begin("load", artifact=resolved.artifact, device=same[0], **given)
            worker.finish(time_limit("load"))
            yield worker

    return load


def _read_tokenizer(folder: Path, subject: str) -> Tokenizer:
    """Read the tokenizer, and compile the chat template while the worker is loading."""
    from .text.tokenizer import Tokenizer  # start-up: jinja2 and tokenizers, imported while the worker loads

    tokenizer = Tokenizer.from_folder(folder, subject=subject)
    tokenizer.check_chat()
    return tokenizer

"""Load a resolved model on a device: the engine in a worker process, the tokenizer in this one."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from attrs import field, frozen

from .config import debugged_hook, time_limit
from .errors import BackendError
from .figures import failures
from .figures.recorder import Limits, Recorder
from .figures.values import Subject
from .models.fit import usable_context
from .selection import Candidate
from .store.entry import touch
from .values import Device

if TYPE_CHECKING:
    from pathlib import Path

    from .models.ref import ModelRef
    from .models.request import ModelRequest, ResolvedModel
    from .text.tokenizer import Tokenizer
    from .worker.host import Worker

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
    recorder: Recorder | None = None
    """Takes the figures of answers; None where they would not be comparable."""

    def stall_limits(self, prompt_tokens: int) -> Limits:
        """Return the seconds after which the device counts as hung, by what it did before."""
        if self.recorder is None:
            return None, None
        lengths = {"context_length": self.context_length, "at_once": self.max_concurrency}
        return self.recorder.stall_limits(prompt_tokens, **lengths)


def load_engine(
    ref: ModelRef, request: ModelRequest, candidate: Candidate, resolved: ResolvedModel, worker: Worker
) -> LoadedEngine:
    """Load a resolved model on the candidate's device.

    The worker loads the weights while this process reads the tokenizer.

    Raises:
        UsageError: the engine does not accept one of the options.
        ModelError: the weights or the tokenizer are damaged.
        BackendError: the backend failed, died, or exceeded its time limit.
    """
    device, artifact = candidate.device, resolved.artifact
    given = {"purpose": request.purpose, "prompt_tokens": request.prompt_tokens}
    started = time.monotonic()
    worker.begin("load", artifact=artifact, device=device, options=request.options_of(device.backend), **given)
    logger.info(
        *("%s %s, %s, on %s (%s): %s", ref.name, artifact.precision, resolved.origin),
        *(device, device.name, candidate.why),
    )
    tokenizer = _read_tokenizer(resolved.tokenizer_dir, subject=str(ref.path or ref.name))
    request.progress("loading")
    try:
        engine = worker.finish(time_limit("load"), request.progress)
    except BackendError as error:
        failures.note(worker.backend, device, error.message)
        raise
    load_s = time.monotonic() - started
    touch(artifact.path)
    offered: int = engine["context_length"]
    context_length = usable_context(ref, device, artifact.precision, offered)
    if context_length < offered:
        logger.info("%s holds %d tokens of context, not %d", device, context_length, offered)
    subject = Subject(backend=device.backend, device=device.id, model=ref.store_name, precision=artifact.precision)
    content = str(artifact.manifest.get("digest", ""))
    uncomparable = request.options_of(device.backend) or debugged_hook() is not None
    return LoadedEngine(
        worker=worker,
        device=device,
        precision=artifact.precision,
        tokenizer=tokenizer,
        vocabulary=tokenizer.id_count,
        context_length=context_length,
        max_concurrency=engine["max_concurrency"],
        capabilities=engine["capabilities"],
        recorder=None if uncomparable else Recorder(subject, worker.backend, device, content=content, load_s=load_s),
    )


def _read_tokenizer(folder: Path, subject: str) -> Tokenizer:
    """Read the tokenizer, and compile the chat template while the worker is loading."""
    from .text.tokenizer import Tokenizer  # start-up: jinja2 and tokenizers, imported while the worker loads

    tokenizer = Tokenizer.from_folder(folder, subject=subject)
    tokenizer.check_chat()
    return tokenizer

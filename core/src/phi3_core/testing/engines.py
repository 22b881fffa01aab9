"""An engine in a worker process, as the kit asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import psutil
from attrs import frozen

from phi3_core.values import Artifact, Device, GenerationRequest, Progress, Sampling, no_progress
from phi3_core.worker.generation import Generation
from phi3_core.worker.host import Worker

from . import models

LIMIT_S = 300.0
"""The time limit of a call, in seconds."""


@frozen(kw_only=True, eq=False)
class LoadedEngine:
    """An engine that a worker process has loaded."""

    worker: Worker
    key: object
    vocabulary: int
    context_length: int
    max_concurrency: int
    capabilities: frozenset[str]

    @classmethod
    def load(
        cls,
        worker: Worker,
        artifact: Artifact,
        device: Device,
        options: Mapping[str, str],
        purpose: str,
        *,
        key: object = None,
        prompt_tokens: int | None = None,
        tokenizer: Path | None = None,
        progress: Progress = no_progress,
    ) -> LoadedEngine:
        """Call ``load`` in a worker process, whose engine it becomes."""
        given: dict[str, Any] = {"artifact": artifact, "device": device, "options": options, "purpose": purpose}
        given |= {"prompt_tokens": prompt_tokens, "tokenizer": tokenizer}
        facts = worker.call("load", limit_s=LIMIT_S, progress=progress, **given)
        name = artifact.path.name.rpartition("-")[0]
        vocabulary = models.MODELS.get(name, {}).get("vocab_size", models.VOCABULARY)
        facts["capabilities"] = frozenset(facts["capabilities"])
        return cls(worker=worker, key=key, vocabulary=vocabulary, **facts)

    def start(self, prompt: Sequence[int], count: int, stop_ids: Sequence[int] = (), **settings: Any) -> Generation:
        """Start an answer of up to ``count`` ids. ``settings`` are fields of the request or of its sampling."""
        more = {name: settings.pop(name) for name in ("json_schema", "logprobs", "lookup") if name in settings}
        sampling = Sampling(**settings)
        request = GenerationRequest(
            prompt_ids=prompt, max_new_tokens=count, stop_ids=stop_ids, sampling=sampling, **more
        )
        return self.worker.start(request, vocabulary=self.vocabulary)

    def ask(self, prompt: Sequence[int], count: int, stop_ids: Sequence[int] = (), **settings: Any) -> list[int]:
        """Return an answer of up to ``count`` ids."""
        return list(self.start(prompt, count, stop_ids, **settings).ids())

    def logits(self, ids: Sequence[int]) -> npt.NDArray[Any]:
        """Return the logits after each of ``ids``, ``[ids, vocabulary]``."""
        found: npt.NDArray[Any] = self.worker.call("logits", limit_s=LIMIT_S, ids=ids, vocabulary=self.vocabulary)
        return found

    @property
    def process(self) -> psutil.Process:
        """The worker process."""
        return psutil.Process(self.worker._process.pid)  # noqa: SLF001 - the kit looks where users cannot

"""Obtain a model for the first candidate that works, without loading it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .candidates import CandidateQueue
from .models.ref import ModelRef
from .models.request import ArtifactRequest, ModelRequest
from .plugin import Backend
from .selection import Candidate
from .store.store import Store
from .surveys import Survey
from .worker.host import Worker
from .worker.pool import WorkerPool

T = TypeVar("T")

Step = Callable[[ArtifactRequest, Store, Worker], T]
"""Obtains an artifact, or says how it would."""


def for_first(
    request: ModelRequest, store: Store, choice: tuple[ModelRef, Survey, tuple[Candidate, ...]], step: Step[T]
) -> tuple[ArtifactRequest, Backend, T]:
    """Return what was asked for the first candidate that ``step`` succeeds for, its backend, and the result.

    Raises as :meth:`CandidateQueue.first`.
    """
    ref, found, candidates = choice

    def take(candidate: Candidate) -> tuple[ArtifactRequest, Backend, T]:
        asked, backend = ArtifactRequest.of(request, ref, candidate), found.backend(candidate.device.backend)
        with WorkerPool().take(backend) as worker:
            return asked, backend, step(asked, store, worker)

    return CandidateQueue(candidates).first(take)

"""Load the models of a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from phi3_core.model import Model
from phi3_core.pipeline import open_session
from phi3_core.worker.pool import WorkerPool

if TYPE_CHECKING:
    from phi3_core.models.request import ModelRequest


def open_model(request: ModelRequest, word: str, workers: WorkerPool | None = None) -> Model:
    """Return a loaded model.

    Args:
        request: how models are loaded.
        word: which one, as ``--model`` takes it.
        workers: has the process to use, if one has been started already.

    Raises:
        Phi3Error: see :func:`~phi3_core.pipeline.open_session`.
    """
    return Model(open_session(evolve(request, model=word), workers or WorkerPool()))

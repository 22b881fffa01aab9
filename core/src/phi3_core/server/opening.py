"""Load the models of a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from phi3_core.model import Model
from phi3_core.pipeline import open_session
from phi3_core.worker.pool import WorkerPool

if TYPE_CHECKING:
    from phi3_core.models.request import ModelRequest

    from .offers import Offer


def open_model(request: ModelRequest, offer: Offer, workers: WorkerPool | None = None) -> Model:
    """Return a loaded model.

    Args:
        request: how models are loaded.
        offer: which one. If nobody has named it at the start, nothing is fetched for it.
        workers: has the process to use, if one has been started already.

    Raises:
        Phi3Error: see :func:`~phi3_core.pipeline.open_session`.
    """
    offline = request.offline or offer.is_stored
    return Model(open_session(evolve(request, model=offer.word, offline=offline), workers or WorkerPool()))

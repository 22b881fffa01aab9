"""What is known of a model's speed on the devices of this machine."""

from __future__ import annotations

from phi3_core.figures.known import gather
from phi3_core.figures.values import Known
from phi3_core.store.entry import ArtifactKey
from phi3_core.store.store import Store
from phi3_core.surveys import Survey
from phi3_core.values import Offer

from .ref import ModelRef


def known_of(found: Survey, ref: ModelRef, store: Store) -> Known:
    """Return the figures of a model on the devices of a survey, and the devices that failed."""

    def content(offer: Offer, precision: str) -> str:
        key = ArtifactKey(backend=offer.device.backend, precision=precision, layout=offer.layout)
        return store.artifact_digest(ref.store_name, key)

    return gather(found, ref.store_name, content)

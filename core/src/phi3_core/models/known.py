"""What is known of a model on this machine: its speed on devices, and the artifacts in the store."""

from __future__ import annotations

from phi3_core.figures.known import gather
from phi3_core.figures.values import Known
from phi3_core.store.entry import ArtifactKey
from phi3_core.store.store import Store
from phi3_core.surveys import Survey
from phi3_core.values import Offer

from .ref import ModelRef
from .request import ArtifactRequest


def known_of(found: Survey, ref: ModelRef, store: Store) -> Known:
    """Return the figures of a model on the devices of a survey, and the devices that failed."""

    def content(offer: Offer, precision: str) -> str:
        key = ArtifactKey(backend=offer.device.backend, precision=precision, layout=offer.layout)
        return store.artifact_digest(ref.store_name, key)

    return gather(found, ref.store_name, content)


def stored_precisions(ref: ModelRef, asked: ArtifactRequest, store: Store) -> tuple[str, ...]:
    """Return those of the requested precisions at which the store has an artifact of the model for the device."""
    if ref.form == "artifact":
        return ()
    return tuple(each for each in asked.precisions if store.artifact_digest(ref.store_name, asked.key(each)))

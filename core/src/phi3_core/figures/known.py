"""Gather what selection is handed: the figures and failures of the devices of a survey."""

from __future__ import annotations

import time
from collections.abc import Callable

from phi3_core.surveys import Survey
from phi3_core.values import Offer

from . import failures, record
from .conditions import current
from .values import Known, Subject

Content = Callable[[Offer, str], str]
"""Returns the digest of the artifact that an offer's device would load at a precision; empty if it is unknown."""


def gather(survey: Survey, model: str, content: Content) -> Known:
    """Return the figures of a model on the devices of a survey, and the devices that failed.

    Args:
        survey: the devices.
        model: the model's name in the store.
        content: tells which weights the figures would be of now.
    """
    now = time.time()
    backends = {answer.backend.name: answer.backend for answer in survey.answers}
    figures = {}
    for offer in survey.offers:
        device = offer.device
        for precision in offer.precisions:
            subject = Subject(backend=device.backend, device=device.id, model=model, precision=precision)
            if (found := record.read(subject)) is None:
                continue
            runtime = found.conditions.runtime
            today = current(backends[device.backend], device, content=content(offer, precision), runtime=runtime)
            figures[str(device), precision] = found.figures(today)
    devices = [offer.device for offer in survey.offers]
    return Known(figures=figures, failures=failures.held_back(backends, devices, now), now=now)

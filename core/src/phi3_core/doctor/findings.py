"""Findings of the backends' ``diagnose`` hooks: each is called in its own process, with a time limit."""

from __future__ import annotations

import time
from collections.abc import Iterable

from attrs import frozen

from phi3_core.config import time_limit
from phi3_core.errors import Phi3Error
from phi3_core.plugin import Broken
from phi3_core.surveys import Survey
from phi3_core.values import SEVERITIES, Finding
from phi3_core.worker.pool import WorkerPool

CORE = "core"
"""The name below which core reports."""


@frozen(kw_only=True)
class Diagnosis:
    """A finding and the backend that reported it."""

    backend: str
    finding: Finding


def ask_backends(found: Survey) -> tuple[tuple[Diagnosis, ...], tuple[Broken, ...]]:
    """Return what the backends of a survey find, and those whose ``diagnose`` hook failed.

    All are asked at once; the limit (``PHI3_DIAGNOSE_LIMIT``, 30 s) applies to all from the common start.
    """
    asked = [answer for answer in found.answers if "diagnose" in answer.hooks]
    limit_s, started = time_limit("diagnose"), time.monotonic()
    diagnoses: list[Diagnosis] = []
    broken: list[Broken] = []
    workers = [WorkerPool().take(answer.backend) for answer in asked]
    try:
        for worker in workers:
            worker.begin("diagnose", machine=found.machine)
        for worker in workers:
            backend = worker.backend
            try:
                said = worker.finish(limit_s, since=started)
                diagnoses += [Diagnosis(backend=backend.name, finding=Finding(**item)) for item in said]
            except Phi3Error as error:
                broken.append(Broken(plugin=backend.name, distribution=backend.distribution, error=error.message))
    finally:
        for worker in workers:
            worker.kill()
    return tuple(diagnoses), tuple(broken)


def severest_first(diagnoses: Iterable[Diagnosis]) -> tuple[Diagnosis, ...]:
    """Return diagnoses with the severest first, otherwise in their order."""
    return tuple(sorted(diagnoses, key=lambda one: -SEVERITIES.index(one.finding.severity)))

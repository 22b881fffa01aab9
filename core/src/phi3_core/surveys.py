"""What can run here: every installed backend asked in a process of its own, all at once, with a time limit.

Answers are cached, keyed by everything that is installed and by the drivers, so that a second look costs milliseconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from . import __version__, machine, paths
from .errors import Phi3Error
from .plugin import Backend, Broken, installed
from .values import Machine, Offer, Refusal, to_plain, values_of

if TYPE_CHECKING:
    from .worker.host import Worker

logger = logging.getLogger("phi3_core")

_FRESH_S = 24 * 3600.0
# A backend that failed is asked again soon: what broke it may have been a moment's trouble.
_BROKEN_FRESH_S = 600.0


def _backend(given: Any) -> Any:
    return Backend(**given) if isinstance(given, dict) else given


def _words(given: Any) -> Any:
    return tuple(given)


def _offers(given: Any) -> Any:
    return values_of(Offer, given)


def _refusals(given: Any) -> Any:
    return values_of(Refusal, given)


def _answers(given: Any) -> Any:
    return values_of(Answer, given)


def _broken(given: Any) -> Any:
    return values_of(Broken, given)


@frozen(kw_only=True)
class Answer:
    """What one backend said about this machine."""

    backend: Backend = field(converter=_backend)
    hooks: tuple[str, ...] = field(converter=_words)
    offers: tuple[Offer, ...] = field(converter=_offers)
    refusals: tuple[Refusal, ...] = field(converter=_refusals)


@frozen(kw_only=True)
class Survey:
    """What all backends said."""

    machine: Machine
    answers: tuple[Answer, ...] = field(converter=_answers)
    broken: tuple[Broken, ...] = field(converter=_broken)

    @property
    def offers(self) -> tuple[Offer, ...]:
        return tuple(offer for answer in self.answers for offer in answer.offers)

    @property
    def refusals(self) -> tuple[tuple[str, Refusal], ...]:
        """Pairs of a backend's name and its refusal."""
        return tuple((answer.backend.name, refusal) for answer in self.answers for refusal in answer.refusals)

    def backend(self, name: str) -> Backend:
        return next(answer.backend for answer in self.answers if answer.backend.name == name)


def survey(*, refresh: bool = False) -> Survey:
    """Ask every installed backend which devices it can drive here.

    ``refresh`` asks again even if nothing that is known to matter has changed since the last time.
    """
    here = machine.this_machine()
    key = _key()
    file = paths.home() / "survey.json"
    if not refresh and (cached := _cached(file, key, here)):
        return cached
    found = _ask_all(here)
    # An unwritable store costs the next command some time, and nothing else.
    with contextlib.suppress(OSError):
        content = {"key": key, "time": time.time(), "answers": found.answers, "broken": found.broken}
        paths.write_json(file, to_plain(content))
    return found


def warn_of_broken(found: Survey) -> None:
    """Log a warning for each backend that is broken."""
    for broken in found.broken:
        logger.warning("backend %s (%s) is broken: %s", broken.plugin, broken.distribution, broken.error)


def _cached(file: Path, key: str, here: Machine) -> Survey | None:
    content = paths.read_json(file)
    try:
        if content["key"] != key:
            return None
        fresh_s = _BROKEN_FRESH_S if content["broken"] else _FRESH_S
        if not 0 <= time.time() - content["time"] < fresh_s:
            return None
        return Survey(machine=here, answers=content["answers"], broken=content["broken"])
    except (KeyError, TypeError, ValueError):  # missing, or written by another version
        return None


def _key() -> str:
    """Changes when a distribution is installed, updated or removed, or a driver is."""
    facts = [__version__, sys.executable, sys.version, *machine.driver_fingerprint()]
    for folder in sys.path:
        with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
            facts += sorted(
                f"{entry.name} {entry.stat().st_mtime_ns}"
                for entry in entries
                if entry.name.endswith((".dist-info", ".egg-info"))
            )
    return hashlib.sha256("\n".join(facts).encode("utf-8", "surrogateescape")).hexdigest()


def _ask_all(here: Machine) -> Survey:
    # start-up: subprocess and multiprocessing, which a cached survey does without
    from .config import time_limit
    from .worker.pool import WorkerPool

    backends, broken = installed()
    failed = list(broken)
    answers: list[Answer] = []
    limit_s = time_limit("detect")
    started = time.monotonic()
    workers = [WorkerPool().take(backend) for backend in backends]
    try:
        for worker in workers:
            worker.begin("detect", machine=here)
        for worker in workers:
            try:
                # They run side by side, so that one limit, from the common start, is enough for all.
                answers.append(_answer(worker, limit_s, started))
            except Phi3Error as error:
                backend = worker.backend
                failed.append(Broken(plugin=backend.name, distribution=backend.distribution, error=error.message))
    finally:
        for worker in workers:
            worker.kill()
    return Survey(machine=here, answers=tuple(answers), broken=tuple(failed))


def _answer(worker: Worker, limit_s: float, started: float) -> Answer:
    said = worker.finish(limit_s, since=started)
    return Answer(
        backend=worker.backend,
        hooks=worker.hooks,
        offers=tuple(item["offer"] for item in said if "offer" in item),
        refusals=tuple(item["refusal"] for item in said if "refusal" in item),
    )

"""Survey the usable devices: each installed backend is called in its own process, all in parallel, with a time limit.

Answers are cached. The key covers the installed distributions and the drivers; a cached survey takes milliseconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen, validators

from . import __version__, machine, paths
from .errors import Phi3Error
from .options import closest
from .plugin import Backend, Broken, installed
from .values import Machine, Offer, Refusal, to_plain, values_of

if TYPE_CHECKING:
    from .worker.host import Worker

logger = logging.getLogger("phi3_core")

_FRESH_S = 24 * 3600.0
# Shorter, because the cause of a failure may be temporary.
_BROKEN_FRESH_S = 600.0
_UNTIL = f"it is asked again after {_BROKEN_FRESH_S / 60:.0f} minutes, or by: phi3 devices --refresh"
_OTHERS_S = 1.0
"""How much longer than the backend that the user named others may take, in seconds."""


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


def _each(kind: type) -> Any:
    """Return the validator of a tuple of values of one class."""
    return validators.deep_iterable(validators.instance_of(kind))


@frozen(kw_only=True)
class Answer:
    """The hooks of a backend, and what its ``detect`` returned."""

    backend: Backend = field(converter=_backend)
    hooks: tuple[str, ...] = field(converter=_words)
    offers: tuple[Offer, ...] = field(converter=_offers, validator=_each(Offer))
    refusals: tuple[Refusal, ...] = field(converter=_refusals, validator=_each(Refusal))


@frozen(kw_only=True)
class Survey:
    """The answers of all backends, and the broken ones."""

    machine: Machine
    answers: tuple[Answer, ...] = field(converter=_answers, validator=_each(Answer))
    broken: tuple[Broken, ...] = field(converter=_broken, validator=_each(Broken))
    unasked: tuple[str, ...] = field(default=(), converter=_words, validator=_each(str))
    """The names of backends that were not waited for, because another one was named."""

    @property
    def offers(self) -> tuple[Offer, ...]:
        """The offers of all backends."""
        return tuple(offer for answer in self.answers for offer in answer.offers)

    @property
    def refusals(self) -> tuple[tuple[str, Refusal], ...]:
        """The refusals of all backends, each with the backend's name."""
        return tuple((answer.backend.name, refusal) for answer in self.answers for refusal in answer.refusals)

    def backend(self, name: str) -> Backend:
        """Return the backend with this name, which must be among the answers."""
        return next(answer.backend for answer in self.answers if answer.backend.name == name)


def survey(*, refresh: bool = False, wanted: str = "auto") -> Survey:
    """Ask every installed backend which devices it can use on this machine.

    Args:
        refresh: ask again instead of using cached answers.
        wanted: what the user named as the device. If it is of one backend, slower ones are not waited for.
    """
    here = machine.this_machine()
    key = _key(here)
    file = paths.home() / "survey.json"
    named = wanted.partition(":")[0].casefold()
    if not refresh and (cached := _cached(file, key, here, named)):
        return cached
    found = _ask_all(here, named)
    # If the store cannot be written, the next survey is not cached.
    with contextlib.suppress(OSError):
        answers, broken = found.answers, found.broken
        content = {"key": key, "time": time.time(), "answers": answers, "broken": broken, "unasked": found.unasked}
        paths.write_json(file, to_plain(content))
    return found


def warn_of_broken(found: Survey) -> None:
    """Log a warning for each broken backend."""
    for broken in found.broken:
        logger.warning("backend %s (%s) is broken: %s", broken.plugin, broken.distribution, broken.error)


def warn_of_unknown(found: Survey, names: Iterable[str]) -> None:
    """Log a warning for each name, set in the configuration, that is almost that of a backend."""
    known = [*map(_name, found.answers), *(each.plugin for each in found.broken), *found.unasked]
    for name in names:
        if name.casefold() not in map(str.casefold, known) and (meant := closest(name, known)):
            logger.warning("options.%s are for no backend; did you mean options.%s?", name, meant)


def _cached(file: Path, key: str, here: Machine, named: str) -> Survey | None:
    content = paths.read_json(file)
    try:
        if content["key"] != key:
            return None
        fresh_s = _BROKEN_FRESH_S if content["broken"] else _FRESH_S
        if not 0 <= time.time() - content["time"] < fresh_s:
            return None
        names = ("answers", "broken", "unasked")
        found = Survey(machine=here, **{name: content[name] for name in names})
        known = {name.casefold() for name in (*map(_name, found.answers), *(each.plugin for each in found.broken))}
        return None if found.unasked and named not in known else found
    except paths.DAMAGED:  # missing, or written by another version
        return None


def _name(answer: Answer) -> str:
    return answer.backend.name


def _key(here: Machine) -> str:
    """Return a key that changes when a distribution or a driver is installed, updated or removed."""
    facts = [__version__, sys.executable, sys.version, *machine.driver_fingerprint()]
    facts.append(str(here.memory_bytes))  # devices are offered with it; a container may be given another limit
    for folder in sys.path:
        with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
            facts += sorted(
                f"{entry.name} {entry.stat().st_mtime_ns}"
                for entry in entries
                if entry.name.endswith((".dist-info", ".egg-info"))
            )
    return hashlib.sha256("\n".join(facts).encode("utf-8", "surrogateescape")).hexdigest()


def _ask_all(here: Machine, named: str) -> Survey:
    # start-up: subprocess and multiprocessing, which a cached survey does not need
    from .config import time_limit
    from .worker.pool import WorkerPool

    backends, broken = installed()
    failed = list(broken)
    answers: list[Answer] = []
    unasked: list[str] = []
    limit_s = longest_s = time_limit("detect")
    started = time.monotonic()
    # First the one that is named: it alone is waited for as long as may be.
    workers = [
        WorkerPool().take(backend) for backend in sorted(backends, key=lambda each: each.name.casefold() != named)
    ]
    try:
        for worker in workers:
            worker.begin("detect", machine=here)
        for worker in workers:
            backend = worker.backend
            try:
                # The workers run in parallel: one limit, from the common start, applies to all.
                answers.append(_answer(worker, limit_s, started))
            except Phi3Error as error:
                is_slow = time.monotonic() - started >= limit_s
                if is_slow and limit_s < longest_s:
                    unasked.append(backend.name)
                    continue
                words = f"{error.message}; {_UNTIL}" if is_slow else error.message
                failed.append(Broken(plugin=backend.name, distribution=backend.distribution, error=words))
            if backend.name.casefold() == named:
                limit_s = min(longest_s, time.monotonic() - started + _OTHERS_S)
    finally:
        for worker in workers:
            worker.kill()
    answers.sort(key=_name)
    return Survey(machine=here, answers=tuple(answers), broken=tuple(failed), unasked=tuple(sorted(unasked)))


def _answer(worker: Worker, limit_s: float, started: float) -> Answer:
    said = worker.finish(limit_s, since=started)
    offers = tuple(item["offer"] for item in said if "offer" in item)
    refusals = tuple(item["refusal"] for item in said if "refusal" in item)
    if not said:
        backend = worker.backend
        words = f"detect of {backend.release} returned nothing: no device, and no reason why not"
        refusals = (Refusal(reason=words, remedy="phi3 doctor"),)
    return Answer(backend=worker.backend, hooks=worker.hooks, offers=offers, refusals=refusals)

"""From a wish to a model that answers: survey, choose, obtain, load, generate.

The first four steps are taken here, in this order, by :meth:`Journey.advance`; the fifth is the user's, through the
:class:`~phi3_core.model.Model`. When an engine dies in the middle of an answer the journey is advanced again, to the
next best device.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from attrs import field, frozen

from .errors import BackendError, NoDeviceError, Phi3Error
from .models import fit, resolve
from .models.catalogue import CATALOGUE
from .models.download_plan import Plan
from .models.fit import TooLargeError
from .models.obtained import Obtained, Unobtainable
from .models.ref import Reference, look_up
from .models.request import Need
from .replies import Attempt
from .selection import Candidate, Ranking, Wish, rank
from .store.store import Store, touch
from .surveys import Survey, survey
from .values import Device, Progress, Recipe
from .worker.host import Worker, limit

if TYPE_CHECKING:
    from .text.tokenizer import Tokenizer

logger = logging.getLogger("phi3_core")

LOAD_LIMIT_S = 900.0


def no_progress(stage: str, done: int | None = None, total: int | None = None) -> None:
    """For those who do not want to know how far it is."""


@frozen(kw_only=True)
class Loaded:
    """An engine in its worker process."""

    worker: Worker
    device: Device
    precision: str
    tokenizer: Tokenizer
    context_length: int
    capabilities: frozenset[str] = field(converter=frozenset)


@attrs.define(kw_only=True)
class Journey:
    """One wish, the devices that can fulfil it, and how far along them it is."""

    reference: Reference
    wish: Wish
    survey: Survey
    ranking: Ranking
    store: Store
    options: Mapping[str, str]
    purpose: str
    progress: Progress
    offline: bool = False
    update: bool = False
    spare: Worker | None = None
    recipe: Recipe | None = None
    check: bool = True
    attempts: list[Attempt] = field(factory=list)
    _left: Iterator[Candidate] = field(init=False)
    _current: Candidate = field(init=False)
    _tokenizer: Tokenizer | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._left = iter(self.ranking.candidates)

    def advance(self, failure: Phi3Error | None = None) -> Loaded:
        """Obtain and load the model on the best device that is left.

        ``failure`` is what became of the engine before, if there was one.

        Raises:
            Phi3Error: the last failure, when no device is left.
        """
        for candidate in self._left:
            self._go_on(failure, candidate)
            try:
                return self._load(candidate)
            except (BackendError, Unobtainable, TooLargeError) as error:
                failure = self.failed(error, candidate.device)
        raise failure or NoDeviceError("no device is left to try", hint="phi3 devices")

    @staticmethod
    def _go_on(failure: Phi3Error | None, candidate: Candidate) -> None:
        """Say what failed, if anything did, and what is tried instead."""
        if failure is not None:
            logger.warning("%s; going on with %s", failure.message, candidate.device)

    def failed(self, error: Phi3Error, device: Device) -> Phi3Error:
        """Note that a device was tried in vain, and make sure that the error names it."""
        if isinstance(error, BackendError) and not error.message.startswith(str(device)):
            error.message = f"{device}: {error.message}"
            error.args = (error.message,)
        self.attempts.append(Attempt(device=str(device), outcome=error.message))
        return error

    def again(self) -> Loaded:
        """Load once more where the journey last arrived: the engine was stopped for a reason of the user's."""
        return self._load(self._current)

    def fetch(self) -> tuple[Device, Obtained]:
        """Obtain the model for the best device, without loading it."""
        failure: Phi3Error | None = None
        for candidate in self._left:
            self._go_on(failure, candidate)
            worker = self._worker(candidate.device)
            try:
                return candidate.device, self._obtain(candidate, worker)
            except (BackendError, Unobtainable, TooLargeError) as error:
                failure = self.failed(error, candidate.device)
            finally:
                worker.kill()
        raise failure or NoDeviceError("no device is left to try", hint="phi3 devices")

    def _worker(self, device: Device) -> Worker:
        """A worker for the device's backend: the spare one, if it is still there."""
        worker, self.spare = self.spare or Worker(), None
        worker.disposable = self.purpose == "answer"
        return worker.open(self.survey.backend(device.backend))

    def plan(self) -> Plan:
        """What :meth:`fetch` would download for the best device that the model can be had for."""
        failure: Phi3Error | None = None
        for candidate in self._left:
            self._go_on(failure, candidate)
            worker = self._worker(candidate.device)
            try:
                worker.finish(limit("load", LOAD_LIMIT_S))
                return resolve.plan(
                    self._need(candidate), self.store, worker=worker, offline=self.offline, update=self.update
                )
            except (BackendError, Unobtainable, TooLargeError) as error:
                failure = self.failed(error, candidate.device)
            finally:
                worker.kill()
        raise failure or NoDeviceError("no device is left to try", hint="phi3 devices")

    def _need(self, candidate: Candidate) -> Need:
        return Need(
            reference=self.reference,
            device=candidate.device,
            precisions=self._fitting(candidate),
            layout=candidate.layout,
            recipe=self.recipe,
            check=self.check,
        )

    def _fitting(self, candidate: Candidate) -> tuple[str, ...]:
        """The candidate's precisions at which the model fits its fit."""
        known, memory_bytes = CATALOGUE.get(self.reference.name), candidate.device.memory_bytes
        if known is None or self.reference.form != "named" or memory_bytes is None:
            return candidate.precisions
        return fit.check(known, candidate.precisions, str(candidate.device), memory_bytes)

    def _context(self, candidate: Candidate, precision: str, offered: int) -> int:
        """The engine's context, or as much of it as the device's memory holds."""
        known, memory_bytes = CATALOGUE.get(self.reference.name), candidate.device.memory_bytes
        if known is None or self.reference.form != "named" or memory_bytes is None:
            return offered
        room = fit.context_that_fits(known, precision, memory_bytes)
        if room < offered:
            logger.info("%s holds %d tokens of context, not %d", candidate.device, room, offered)
        return min(offered, room)

    def _obtain(self, candidate: Candidate, worker: Worker) -> Obtained:
        need = self._need(candidate)
        found = None if self.update or self.recipe else resolve.stored(need, self.store)
        if found is None:
            worker.finish(limit("load", LOAD_LIMIT_S))  # the import: whether there is a hook to ask
            found = resolve.obtain(
                need,
                self.store,
                worker=worker,
                progress=self.progress,
                offline=self.offline,
                update=self.update,
            )
        return found

    def _load(self, candidate: Candidate) -> Loaded:
        self._current = candidate
        device = candidate.device
        # The worker starts first, so that it imports its plugin while this process looks for the weights.
        worker = self._worker(device)
        try:
            found = self._obtain(candidate, worker)
            worker.begin("load", artifact=found.artifact, device=device, options=self.options, purpose=self.purpose)
            precision = found.artifact.precision
            logger.info(
                *("%s %s, %s, on %s (%s): %s", self.reference.name, precision, found.how),
                *(device, device.name, candidate.why),
            )
            tokenizer = self._read_text(found.text)
            self.progress("loading")
            engine = worker.finish(limit("load", LOAD_LIMIT_S), self.progress)
            touch(found.artifact.path)
        except BaseException:
            worker.kill()
            raise
        return Loaded(
            worker=worker,
            device=device,
            precision=precision,
            tokenizer=tokenizer,
            context_length=self._context(candidate, precision, engine["context_length"]),
            capabilities=engine["capabilities"],
        )

    def _read_text(self, folder: Path) -> Tokenizer:
        """Read tokenizer and template while the worker is loading: a first, empty use compiles the template."""
        if self._tokenizer is None:
            from .text.tokenizer import Tokenizer

            self._tokenizer = Tokenizer.from_folder(folder)
            self._tokenizer.encode_chat([{"role": "user", "content": ""}])
        return self._tokenizer


def set_out(
    model: str,
    wish: Wish,
    *,
    options: Mapping[str, str] | None = None,
    purpose: str = "conversation",
    progress: Progress = no_progress,
    refresh: bool = False,
    offline: bool = False,
    update: bool = False,
    spare: Worker | None = None,
) -> Journey:
    """The first two steps: ask the backends, and rank what fits.

    ``spare`` is a worker that was started before anybody knew for which backend.

    Raises:
        ModelError: nothing is known by the name ``model``.
        NoDeviceError: no device fits the wish.
    """
    store = Store()
    reference = look_up(model, store)
    found = survey(refresh=refresh)
    for broken in found.broken:
        logger.warning("backend %s (%s) is broken: %s", broken.plugin, broken.distribution, broken.error)
    ranking = rank(found, wish)
    return Journey(
        reference=reference,
        wish=wish,
        survey=found,
        ranking=ranking,
        store=store,
        options=dict(options or {}),
        purpose=purpose,
        progress=progress,
        offline=offline,
        update=update,
        spare=spare,
    )

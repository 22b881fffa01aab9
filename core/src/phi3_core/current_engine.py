"""The engine that a session uses, and the one that replaces it when it fails."""

from __future__ import annotations

import atexit
import functools
import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

from attrs import define

from .answers import Answer, Answering
from .candidates import CandidateQueue, failed_attempt
from .errors import BackendError, Phi3Error, UsageError
from .figures import failures
from .loading import LoadedEngine
from .replies import Attempt
from .selection import Candidate

if TYPE_CHECKING:
    from .turns import Turns

logger = logging.getLogger("phi3_core")

_OPEN: WeakSet[CurrentEngine] = WeakSet()
"""Those that have loaded an engine."""
Load = Callable[[Candidate], LoadedEngine]
"""Obtains a model and loads it on a candidate."""


@define(eq=False)
class FailedEngine:
    """An engine that failed, and what has been done about it."""

    candidate: Candidate | None
    on_trial: frozenset[Answer] = frozenset()
    """The answers that were on trial when it failed: others are not held responsible."""
    attempts: tuple[Attempt, ...] = ()
    """The attempts that failed until another engine was loaded."""
    is_last: bool = False
    """Whether no other engine could be loaded, nor its device started again."""

    def clears(self, answer: Answer) -> bool:
        """Return whether another answer was the likely cause."""
        return bool(self.on_trial) and answer not in self.on_trial


class CurrentEngine:
    """The engine in use. If it fails, the next candidate's replaces it, or its own device is started again.

    Threads may share it.

    Args:
        candidates: the devices that match the request, best first.
        load: obtains the model and loads it on a candidate.
        turns: the turns at the engine, which get as many places as it generates answers at once.
        answering: the answers that are being generated.
        restarts: whether the last device is started again if it fails.
    """

    def __init__(
        self, candidates: Iterable[Candidate], load: Load, turns: Turns, answering: Answering, *, restarts: bool
    ) -> None:
        self._turns = turns
        self._answering = answering
        self._queue = CandidateQueue(candidates)
        self._load = load
        self._restarts = restarts
        self._current: Candidate | None = None
        self._engine: LoadedEngine | None = None
        self._loading = threading.Lock()
        self._unreported = 0
        """The first of the failed attempts that belong to the next answer."""
        # An engine is forgotten with its last answer.
        self._failed: WeakKeyDictionary[LoadedEngine, FailedEngine] = WeakKeyDictionary()
        self.closed = False

    @property
    def engine(self) -> LoadedEngine | None:
        """The loaded engine, if any."""
        return self._engine

    def ready(self) -> LoadedEngine:
        """Return the engine. It is reloaded if its process was killed because it did not react to a cancel.

        Raises:
            UsageError: the session is closed.
            Phi3Error: the engine cannot be loaded; see :meth:`CandidateQueue.first`.
        """
        with self._loading:
            if self.closed:
                raise UsageError("the model is closed")
            if self._engine is None or not self._engine.worker.alive:
                if self._engine is not None and self._engine.recorder is not None:
                    self._engine.recorder.close()
                return self._load_next() if self._current is None else self._use(self._load(self._current))
            return self._engine

    def replace(self, engine: LoadedEngine, error: BackendError, answer: Answer, made: int) -> list[Attempt]:
        """Replace an engine that failed, unless another answer has done so.

        The next candidate's engine replaces it. If no candidate is left, its device is started again, unless the answer
        is held responsible. The engine's other answers go on, and its process ends after the last one.

        Args:
            engine: the engine.
            error: what it failed with.
            answer: one that it failed to generate.
            made: the tokens of the answer.

        Returns:
            The failed attempts: this one, and those of candidates that could not be loaded.

        Raises:
            Phi3Error: no other candidate works, and the device cannot be started again, or may not.
        """
        attempt = failed_attempt(error, engine.device)
        with self._loading:
            failed = self._failed.get(engine)
            if failed is None:
                if self._engine not in {None, engine}:  # a new answer has found it dead, and loaded it again
                    logger.warning("%s; starting %s again", error.message, engine.device)
                failed = self._give_up(engine, error)
            alone = self._answering.end(answer)
            restart = failed.clears(answer) or answer.may_restart(engine.device, made, alone=alone)
            if failed.is_last:
                raise error
            successor = self._engine or self._load_successor(failed, error, restart and self._restarts)
            if successor.device == engine.device and not restart:
                raise error
            return [attempt, *failed.attempts]

    def give_up(self, engine: LoadedEngine, error: BackendError) -> None:
        """Use an engine no more, although no answer needs another one now: the next answer loads it again."""
        with self._loading:
            if engine not in self._failed:
                self._give_up(engine, error)

    def _give_up(self, engine: LoadedEngine, error: BackendError) -> FailedEngine:
        failed = self._failed[engine] = FailedEngine(self._current, self._answering.on_trial(engine))
        failures.note(engine.worker.backend, engine.device, error.message)
        if self._engine is engine:
            self._engine = None
            engine.worker.retire()
            if engine.recorder is not None:
                engine.recorder.close()
        elif self._engine is not None and self._engine.device == engine.device and self._engine.recorder is not None:
            self._engine.recorder.note_failure()
        return failed

    def _load_successor(self, failed: FailedEngine, error: BackendError, restart: bool) -> LoadedEngine:
        before = len(self._queue.attempts)
        failed.is_last = restart  # unless an engine is loaded
        try:
            successor = self._load_next(error, again=failed.candidate if restart else None)
        finally:
            self._unreported = len(self._queue.attempts)
        failed.attempts, failed.is_last = tuple(self._queue.attempts[before:]), False
        return successor

    def _load_next(self, failure: Phi3Error | None = None, *, again: Candidate | None = None) -> LoadedEngine:
        return self._use(self._queue.first(self._load_on, failure, again=again))

    def _load_on(self, candidate: Candidate) -> LoadedEngine:
        engine = self._load(candidate)
        self._current = candidate
        return engine

    def _use(self, engine: LoadedEngine) -> LoadedEngine:
        _OPEN.add(self)
        _close_at_exit()  # registered after what ends the worker, and so called before
        self._engine = engine
        if self.closed:  # meanwhile
            self.close()
            raise UsageError("the model is closed")
        engine.announcement.turns = self._turns
        self._turns.resize(engine.max_concurrency)
        return engine

    def take_attempts(self) -> list[Attempt]:
        """Return the failed attempts that no answer has reported: those of loading the first engine."""
        with self._loading:
            attempts = self._queue.attempts[self._unreported :]
            self._unreported = len(self._queue.attempts)
            return attempts

    def close(self) -> None:
        """Close the engine and end its process. An idle engine is given time to release its device."""
        self.closed = True
        engine, self._engine = self._engine, None
        if engine is not None:
            if engine.recorder is not None:
                engine.recorder.begin_close()
            engine.worker.close()
            if engine.recorder is not None:
                engine.recorder.close()
        for failed in tuple(self._failed):  # they may have had answers to finish
            failed.worker.kill()

    def kill(self) -> None:
        """Kill the engine's process, which ends its answers: they do not go on elsewhere."""
        self.closed = True
        for engine in filter(None, (self._engine, *self._failed)):
            engine.worker.kill()


@functools.cache
def _close_at_exit() -> None:
    """Have all answers end with the interpreter: threads may still read them while it ends the workers."""

    def close() -> None:
        for current in tuple(_OPEN):
            current.closed = True

    atexit.register(close)

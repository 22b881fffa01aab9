"""The engine of one model, the answers that it generates, and failover to the next candidate when it fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterable
from weakref import WeakKeyDictionary

from .answers import Answer, Answering, FailedEngine, rest_of
from .candidates import CandidateQueue, failed_attempt
from .errors import BackendError, OverrunError, Phi3Error, UsageError
from .figures import failures
from .figures.recorder import Answered
from .loading import LoadedEngine
from .pending import BLOCKING, Pending
from .replies import Attempt
from .selection import Candidate
from .turns import Turns
from .values import GenerationRequest
from .worker.generation import Generation

logger = logging.getLogger("phi3_core")

Load = Callable[[Candidate], LoadedEngine]
"""Obtains a model and loads it on a candidate."""


class EngineSession:
    """The engine of one model. If it fails, the next candidate's replaces it, or its own device is started again.

    Threads may share a session.

    Args:
        name: the name of the model.
        candidates: the devices that match the request, best first.
        load: obtains the model and loads it on a candidate.
        max_waiting: the number of answers that may wait for the engine; None for any number.
        restarts: whether the last device is started again if it fails.
    """

    def __init__(
        self,
        name: str,
        candidates: Iterable[Candidate],
        load: Load,
        *,
        max_waiting: int | None = None,
        restarts: bool = True,
    ) -> None:
        self.name = name
        self.turns = Turns(max_waiting=max_waiting)
        """The turns at the engine, which has as many places as it generates answers at once."""
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
        self._answering = Answering()
        self.closed = False

    @property
    def engine(self) -> LoadedEngine | None:
        """The loaded engine, if any."""
        return self._engine

    def open(self) -> EngineSession:
        """Load the model on the first candidate that works, and return the session. Raises as :meth:`ready`."""
        self.ready()
        return self

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
        self._engine = engine
        if self.closed:  # meanwhile
            self.close()
            raise UsageError("the model is closed")
        engine.announcement.turns = self.turns
        self.turns.resize(engine.max_concurrency)
        return engine

    def _take_attempts(self) -> list[Attempt]:
        """Return the failed attempts that no answer has reported: those of loading the first engine."""
        with self._loading:
            attempts = self._queue.attempts[self._unreported :]
            self._unreported = len(self._queue.attempts)
            return attempts

    def generate(self, request: GenerationRequest, answer: Answer) -> Generator[int | Pending, None, None]:
        """Yield the token ids of an answer. If the engine fails, the next one continues after the ids already yielded.

        An engine that fails after the last id costs a warning. While there is no id, it yields what it waits for.

        Args:
            request: prompt ids, sampling settings and stop conditions.
            answer: records the engine and the failed attempts.

        Raises:
            UsageError: the engine does not support a setting of the request, or the session is closed.
            QueueFullError: too many answers are waiting.
            BackendError: the engine failed, and no device could continue.
        """
        made: list[int] = []
        generation: Generation | None = None
        try:
            answer.turn.request()
            while True:
                while not answer.turn.granted.done():
                    yield answer.turn
                answer.turn.granted.result()  # raises if it was cancelled
                yield BLOCKING
                engine = self._begin(request, answer)
                generation = self._start(rest_of(request, made), engine, answer)
                try:
                    for item in generation:
                        if isinstance(item, int):
                            made.append(item)
                            if answer.turn.on_trial:
                                answer.turn.acquit()
                        yield item
                    _warn_if_empty(made, engine)
                    return
                except KeyboardInterrupt:
                    engine.worker.interrupt()
                    raise
                except BackendError as error:
                    if self.closed:  # closed during the generation, which ends the answer
                        return
                    yield BLOCKING
                    generation = None
                    if not self._goes_on(answer, engine, error, made=len(made), most=request.max_new_tokens):
                        return
                answer.turn.renew()
        finally:
            self._end(request, made, generation, answer)

    def _goes_on(self, answer: Answer, engine: LoadedEngine, error: BackendError, *, made: int, most: int) -> bool:
        """Return whether an answer goes on after its engine failed: not if it is complete, which costs a warning.

        Raises as :meth:`replace`.
        """
        if not isinstance(error, OverrunError) and made < most:
            answer.attempts += self.replace(engine, error, answer, made)
            return True
        logger.warning(failed_attempt(error, engine.device).outcome)
        if not isinstance(error, OverrunError):
            self.give_up(engine, error)
        return False

    def _start(self, request: GenerationRequest, engine: LoadedEngine, answer: Answer) -> Generation:
        self._answering.begin(answer)
        limits_s = engine.stall_limits(len(request.prompt_ids))
        return engine.worker.start(request, vocabulary=engine.vocabulary, limits_s=limits_s)

    def _end(self, request: GenerationRequest, made: list[int], generation: Generation | None, answer: Answer) -> None:
        """End an answer, and take its figures, unless another engine has begun it."""
        alone, engine = self._answering.end(answer), answer.engine
        if generation is None:
            answer.turn.leave()
            return
        if engine is not None and engine.recorder is not None and generation.timing.tokens >= len(made):
            engine.recorder.note(Answered(request.prompt_ids, made, generation.timing, alone))
        generation.close()
        # An iterator that does not end keeps its place in the worker.
        generation.at_end(answer.turn.leave)

    def _begin(self, request: GenerationRequest, answer: Answer) -> LoadedEngine:
        """Return the engine for an answer that has its turn."""
        engine = answer.engine = self.ready()
        answer.attempts += self._take_attempts()
        if request.json_schema is not None and "json_schema" not in engine.capabilities:
            raise UsageError(f"{engine.device} cannot follow a JSON schema", hint="phi3 devices lists others")
        if request.logprobs is not None and "logprobs" not in engine.capabilities:
            raise UsageError(
                f"{engine.device} gives no logarithmic probabilities", hint="leave logprobs out, or name another device"
            )
        if request.lookup == "on" and "lookup" not in engine.capabilities:
            if not answer.attempts:
                raise UsageError(
                    f"{engine.device} has no prompt lookup for this", hint="leave it to auto, or name another device"
                )
            logger.warning("%s has no prompt lookup: the answer goes on without it", engine.device)
        return engine

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


def _warn_if_empty(made: list[int], engine: LoadedEngine) -> None:
    """Log a warning if an answer has ended without a token: rarely a model's first token is a stop id."""
    if not made:
        backend = engine.worker.backend
        words = "%s: generate of %s %s ended the answer without a token"
        logger.warning(words, engine.device, backend.distribution, backend.version)

"""The answers of one model, which go on with the next engine when one fails."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable

from .answers import Answer, Answering, rest_of
from .candidates import failed_attempt
from .current_engine import CurrentEngine, Load
from .errors import BackendError, OverrunError, UsageError
from .figures.recorder import Answered
from .loading import LoadedEngine
from .pending import BLOCKING, Pending
from .selection import Candidate
from .turns import Turns
from .values import GenerationRequest
from .worker.generation import Generation

logger = logging.getLogger("phi3_core")


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
        self._answering = Answering()
        self._current = CurrentEngine(candidates, load, self.turns, self._answering, restarts=restarts)

    @property
    def engine(self) -> LoadedEngine | None:
        """The loaded engine, if any."""
        return self._current.engine

    @property
    def closed(self) -> bool:
        """Whether the session is closed."""
        return self._current.closed

    def open(self) -> EngineSession:
        """Load the model on the first candidate that works, and return the session. Raises as :meth:`ready`."""
        self.ready()
        return self

    def ready(self) -> LoadedEngine:
        """Return the engine, loaded again if necessary. Raises as :meth:`CurrentEngine.ready`."""
        return self._current.ready()

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

        Raises as :meth:`CurrentEngine.replace`.
        """
        if not isinstance(error, OverrunError) and made < most:
            answer.attempts += self._current.replace(engine, error, answer, made)
            return True
        logger.warning(failed_attempt(error, engine.device).outcome)
        if not isinstance(error, OverrunError):
            self._current.give_up(engine, error)
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
        answer.attempts += self._current.take_attempts()
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
        self._current.close()

    def kill(self) -> None:
        """Kill the engine's process, which ends its answers: they do not go on elsewhere."""
        self._current.kill()


def _warn_if_empty(made: list[int], engine: LoadedEngine) -> None:
    """Log a warning if an answer has ended without a token: rarely a model's first token is a stop id."""
    if not made:
        backend = engine.worker.backend
        words = "%s: generate of %s %s ended the answer without a token"
        logger.warning(words, engine.device, backend.distribution, backend.version)

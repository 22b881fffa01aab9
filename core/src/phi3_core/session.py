"""The engine of one request, and failover to the next candidate when it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from attrs import evolve

from .errors import BackendError, NoArtifactError, NoDeviceError, Phi3Error, TooLargeError, UsageError
from .loading import LoadedEngine
from .replies import Attempt
from .selection import Candidate
from .values import Device, GenerationRequest

logger = logging.getLogger("phi3_core")

T = TypeVar("T")

Load = Callable[[Candidate], LoadedEngine]
"""Obtains a model and loads it on a candidate."""


class CandidateQueue:
    """The candidates of a request that have not been tried, best first, and the failed attempts."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self._left = iter(candidates)
        self.attempts: list[Attempt] = []
        """The failed attempts since this list was last cleared."""

    def first(self, step: Callable[[Candidate], T], failure: Phi3Error | None = None) -> T:
        """Return the result of ``step`` for the first candidate that it succeeds for.

        Each failure is logged, with the candidate that is tried next.

        Args:
            step: called with one candidate after the other.
            failure: the error of the device used so far, if any.

        Raises:
            Phi3Error: the last failure, if no candidate is left. Errors that another device cannot avoid are raised
                at once.
        """
        for candidate in self._left:
            if failure is not None:
                logger.warning("%s; continuing with %s", failure.message, candidate.device)
            try:
                return step(candidate)
            except (BackendError, NoArtifactError, TooLargeError) as error:
                failure = self.record_failure(error, candidate.device)
        raise failure or NoDeviceError("no device is left to try", hint="phi3 devices")

    def record_failure(self, error: Phi3Error, device: Device) -> Phi3Error:
        """Add a failed attempt, and return the error with the device in its message."""
        if isinstance(error, BackendError) and not error.message.startswith(str(device)):
            error.message = f"{device}: {error.message}"
            error.args = (error.message,)
        self.attempts.append(Attempt(device=str(device), outcome=error.message))
        return error


class EngineSession:
    """The engine of one request. If it fails, the next candidate's engine replaces it.

    Args:
        name: the name of the model.
        candidates: the devices that match the request, best first.
        load: obtains the model and loads it on a candidate.
    """

    def __init__(self, name: str, candidates: Iterable[Candidate], load: Load) -> None:
        self.name = name
        self._queue = CandidateQueue(candidates)
        self._load = load
        self._current: Candidate | None = None
        self._engine: LoadedEngine | None = None
        self.closed = False

    @property
    def engine(self) -> LoadedEngine | None:
        """The loaded engine, if any."""
        return self._engine

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The failed attempts since :meth:`forget_attempts`."""
        return tuple(self._queue.attempts)

    def forget_attempts(self) -> None:
        """Clear the failed attempts, since they belong to the answer that has ended."""
        self._queue.attempts.clear()

    def open(self) -> EngineSession:
        """Load the model on the first candidate that works, and return the session. Raises as :meth:`load_next`."""
        self.load_next()
        return self

    def load_next(self, failure: Phi3Error | None = None) -> LoadedEngine:
        """Load the model on the next candidate that works.

        Args:
            failure: the error of the engine used so far, if any.

        Raises:
            Phi3Error: see :meth:`CandidateQueue.first`.
        """
        self._engine = self._queue.first(self._load_on, failure)
        return self._engine

    def _load_on(self, candidate: Candidate) -> LoadedEngine:
        self._current = candidate
        return self._load(candidate)

    def ready(self) -> LoadedEngine:
        """Return the engine. It is reloaded if its process was killed because it did not react to a cancel.

        Raises:
            UsageError: the session is closed.
            Phi3Error: the engine cannot be loaded.
        """
        if self.closed:
            raise UsageError("the model is closed")
        if self._engine is None or not self._engine.worker.alive:
            if self._current is None:
                return self.load_next()
            self._engine = self._load(self._current)
        return self._engine

    def generate(self, request: GenerationRequest) -> Generator[int, None, None]:
        """Yield the token ids of an answer. If the engine fails, the next one continues after the ids already yielded.

        Raises:
            UsageError: the engine does not support a setting of the request.
            BackendError: the engine failed, and no other device could continue.
        """
        made: list[int] = []
        while True:
            engine = self.ready()
            if request.json_schema is not None and "json_schema" not in engine.capabilities:
                raise UsageError(f"{engine.device} cannot follow a JSON schema", hint="phi3 devices lists others")
            try:
                for token in engine.worker.generate(_continue(request, made)):
                    made.append(token)
                    yield token
                return
            except BackendError as error:
                engine.worker.kill()
                if self.closed:  # closed during the generation, which ends the answer
                    return
                self._engine = None
                self.load_next(self._queue.record_failure(error, engine.device))
            if len(made) >= request.max_new_tokens:
                return

    def close(self) -> None:
        """Close the engine and end its process. An idle engine is given time to release its device."""
        self.closed = True
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.worker.close()

    def kill(self) -> None:
        """Kill the engine's process."""
        if self._engine is not None:
            self._engine.worker.kill()


def _continue(request: GenerationRequest, made: list[int]) -> GenerationRequest:
    """Return the request for the rest of an answer of which the ids ``made`` have been generated."""
    if not made:
        return request
    left = request.max_new_tokens - len(made)
    return evolve(request, prompt_ids=(*request.prompt_ids, *made), max_new_tokens=left)

"""The candidates of one request and the engine now loaded; the next candidate is taken when an engine fails."""

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


class CandidateQueue:
    """The devices that fit a request, best first, and what became of those that were tried."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self._left = iter(candidates)
        self.attempts: list[Attempt] = []
        """Devices that failed, and why, since this list was last cleared."""

    def first(self, step: Callable[[Candidate], T], failure: Phi3Error | None = None) -> T:
        """Return the result of ``step`` on the first candidate on which it succeeds.

        ``failure`` is why a next candidate is taken at all. What failed, and what is tried instead, is logged.

        Raises:
            Phi3Error: the last failure, when no candidate is left.
        """
        for candidate in self._left:
            if failure is not None:
                logger.warning("%s; going on with %s", failure.message, candidate.device)
            try:
                return step(candidate)
            except (BackendError, NoArtifactError, TooLargeError) as error:
                failure = self.record_failure(error, candidate.device)
        raise failure or NoDeviceError("no device is left to try", hint="phi3 devices")

    def record_failure(self, error: Phi3Error, device: Device) -> Phi3Error:
        """Add a failed attempt, and return the error with the device's name in it."""
        if isinstance(error, BackendError) and not error.message.startswith(str(device)):
            error.message = f"{device}: {error.message}"
            error.args = (error.message,)
        self.attempts.append(Attempt(device=str(device), outcome=error.message))
        return error


class EngineSession:
    """One request's engine: loaded, used, loaded again, replaced by the next candidate's, closed."""

    def __init__(self, name: str, candidates: Iterable[Candidate], load: Load) -> None:
        self.name = name
        """The model's."""
        self._queue = CandidateQueue(candidates)
        self._load = load
        self._current: Candidate | None = None
        self._engine: LoadedEngine | None = None
        self._closed = False

    @property
    def engine(self) -> LoadedEngine | None:
        """The engine now loaded, if there is one."""
        return self._engine

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Devices that failed since :meth:`forget_attempts`."""
        return tuple(self._queue.attempts)

    def forget_attempts(self) -> None:
        """Begin a new answer: what failed before is not part of it."""
        self._queue.attempts.clear()

    def load_next(self, failure: Phi3Error | None = None) -> LoadedEngine:
        """Load the next candidate that can be loaded. ``failure`` is why the engine before is given up.

        Raises:
            Phi3Error: the last failure, when no candidate is left.
        """
        self._engine = self._queue.first(self._load_on, failure)
        return self._engine

    def _load_on(self, candidate: Candidate) -> LoadedEngine:
        self._current = candidate
        return self._load(candidate)

    def ready(self) -> LoadedEngine:
        """Return the engine, loaded once more if it had to be killed because it did not heed a cancel."""
        if self._engine is None or not self._engine.worker.alive:
            if self._current is None:
                return self.load_next()
            self._engine = self._load(self._current)
        return self._engine

    def generate(self, request: GenerationRequest) -> Generator[int, None, None]:
        """Yield the ids of an answer: of one engine, or of several if one fails and the next goes on where it was.

        Raises:
            UsageError: the engine does not have what the request asks for.
            BackendError: the engine failed, and no other device could take over.
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
                if self._closed:  # while the answer was generated: it ends there
                    return
                self._engine = None
                self.load_next(self._queue.record_failure(error, engine.device))
            if len(made) >= request.max_new_tokens:
                return

    def close(self) -> None:
        """End the engine and its process; an idle one may free its device first."""
        self._closed = True
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.worker.close()

    def kill(self) -> None:
        """End the engine's process now."""
        if self._engine is not None:
            self._engine.worker.kill()


def _continue(request: GenerationRequest, made: list[int]) -> GenerationRequest:
    """Return the request for what is left of an answer of which ``made`` exists."""
    if not made:
        return request
    left = request.max_new_tokens - len(made)
    return evolve(request, prompt_ids=(*request.prompt_ids, *made), max_new_tokens=left)

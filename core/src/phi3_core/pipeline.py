"""From a request to token ids in five steps: survey, choose, obtain, load, generate. Read this file first.

Each step is one call. The session repeats steps 3 and 4 with the next candidate when a device fails.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack

from .answers import Answer
from .fetching import for_first
from .loading import LoadedEngine, cpu_reference, load_engine
from .models.download_plan import DownloadPlan
from .models.known import known_of
from .models.ref import ModelRef, look_up
from .models.request import ArtifactRequest, FetchedModel, ModelRequest
from .models.resolve import obtain, plan_download
from .pending import Pending
from .selection import Candidate, choose
from .session import EngineSession
from .store.store import Store
from .surveys import Survey, survey, warn_of_broken, warn_of_unknown
from .values import GenerationRequest
from .worker.pool import WorkerPool


def open_session(request: ModelRequest, pool: WorkerPool) -> EngineSession:
    """Run steps 1 to 4: return a session with an engine on the best device that works.

    Raises:
        ModelError: the model is unknown, damaged, cannot be obtained, or fits no device.
        NoDeviceError, BackendError: no device matches the request, or the last one's backend failed.
    """
    store = Store()
    ref, found, candidates = find_candidates(request, store)

    def load(candidate: Candidate) -> LoadedEngine:
        asked, backend = ArtifactRequest.of(request, ref, candidate, chat=True), found.backend(candidate.device.backend)
        with ExitStack() as stack:  # ends the worker if loading fails
            worker = stack.enter_context(pool.take(backend, disposable=request.purpose == "answer"))
            resolved = obtain(asked, store, worker)  # 3. from the store, or made
            cpu = cpu_reference(found, candidate, resolved, pool)
            engine = load_engine(ref, request, candidate, resolved, worker, reference=cpu)  # 4. in the worker process
            stack.pop_all()
            return engine

    return EngineSession(ref.name, candidates, load, max_waiting=request.max_waiting).open()


def generate(
    session: EngineSession, request: GenerationRequest, answer: Answer
) -> Generator[int | Pending, None, None]:
    """Run step 5: yield the token ids of an answer. Raises as :meth:`EngineSession.generate`."""
    return session.generate(request, answer)  # 5. token ids in, token ids out


def fetch(request: ModelRequest) -> FetchedModel:
    """Run steps 1 to 3: obtain the model for the best device. Raises as :func:`open_session`."""
    store = Store()
    asked, backend, resolved = for_first(request, store, find_candidates(request, store), obtain)
    return FetchedModel(ref=asked.ref, device=asked.device, backend=backend, resolved=resolved)


def plan(request: ModelRequest) -> DownloadPlan:
    """Return what :func:`fetch` would download. Raises as :func:`open_session`."""
    store = Store()
    return for_first(request, store, find_candidates(request, store), plan_download)[2]


def find_candidates(request: ModelRequest, store: Store) -> tuple[ModelRef, Survey, tuple[Candidate, ...]]:
    """Run steps 1 and 2: return the model, the survey, and the devices, best first. Raises as :func:`open_session`."""
    ref = look_up(request.model, store)
    found = survey(refresh=request.refresh, wanted=request.device.device)  # 1. each backend in its own process
    warn_of_unknown(found, request.backend_options)
    candidates = choose(found, request.device, known_of(found, ref, store))  # 2. ranked, with reasons
    warn_of_broken(found)  # if there is no candidate, the error has them
    return ref, found, candidates

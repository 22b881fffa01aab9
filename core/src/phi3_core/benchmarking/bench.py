"""Measure the devices that could run a model, one after the other, each in a worker of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone

from attrs import evolve, field, frozen

from phi3_core import __version__
from phi3_core.errors import BackendError, ModelError, Phi3Error, UsageError
from phi3_core.figures import failures
from phi3_core.loading import LoadedEngine, load_engine
from phi3_core.models.known import stored_precisions
from phi3_core.models.ref import ModelRef
from phi3_core.models.request import ArtifactRequest, ModelRequest
from phi3_core.models.resolve import obtain
from phi3_core.pipeline import find_candidates
from phi3_core.plugin import name_device
from phi3_core.selection import Candidate
from phi3_core.store.store import Store
from phi3_core.surveys import Survey
from phi3_core.values import to_plain
from phi3_core.worker.pool import WorkerPool

from .measure import Settings, measure
from .remaining import Remaining
from .results import Report, Result, TaskResult
from .tasks import Task

INTERRUPTED = "interrupted"

Save = Callable[[LoadedEngine, Result], object]
"""Called with each engine that was measured to the end, and its result."""


@frozen(kw_only=True)
class Item:
    """A device at the precisions that may be loaded."""

    candidate: Candidate
    asked: ArtifactRequest


@frozen(kw_only=True)
class Bench:
    """A run over the candidates of a request."""

    request: ModelRequest
    settings: Settings
    quick: bool = False
    """Whether to measure each device at one precision only."""
    save: Save = field(default=lambda *_: None)
    store: Store = field(factory=Store)

    def run(self) -> tuple[Report, Phi3Error | None]:
        """Measure, and return the report, with the last error if nothing could be measured.

        Ctrl-C ends it; the report has what was measured until then.

        Raises:
            ModelError: the model is unknown.
            NoDeviceError: no device matches the request.
        """
        ref, found, candidates = find_candidates(self.request, self.store)
        results: list[Result] = []
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        error: Phi3Error | None = None
        interrupted = False
        try:
            items = list(self._items(ref, candidates, results))
            remaining = Remaining(self.settings, len(items))
            for item in items:
                error = self._measure(item, ref, found, results, remaining) or error
        except KeyboardInterrupt:
            interrupted = True
        report = Report(
            phi3_core=__version__,
            model=ref.name,
            time=started,
            machine=to_plain(found.machine),
            repeats=self.settings.repeats,
            results=results,
            interrupted=interrupted,
        )
        return report, None if any(result.tasks for result in results) else error

    def _items(self, ref: ModelRef, candidates: Sequence[Candidate], results: list[Result]) -> Iterator[Item]:
        """Yield what can be measured. What would need weights that ``run`` would not get is a result with an error."""
        for place, candidate in enumerate(candidates):
            try:
                asked = ArtifactRequest.of(self.request, ref, candidate, chat=True)
            except ModelError as error:
                results.append(_failed(candidate, error.message))
                continue
            stored = stored_precisions(ref, asked, self.store)
            if stored:
                for precision in stored[:1] if self.quick else stored:
                    yield Item(candidate=candidate, asked=evolve(asked, precisions=(precision,)))
            elif place == 0 or ref.form == "artifact":
                yield Item(candidate=candidate, asked=asked)
            else:
                hint = f"phi3 bench {self.request.model} --device {candidate.device} gets them"
                results.append(_failed(candidate, f"its weights are not in the store ({hint})"))

    def _measure(
        self, item: Item, ref: ModelRef, found: Survey, results: list[Result], remaining: Remaining
    ) -> Phi3Error | None:
        """Add the result of one device, complete or not, and return the error that ended it."""
        device, backend = item.candidate.device, found.backend(item.candidate.device.backend)
        result = _failed(item.candidate, INTERRUPTED, precision=item.asked.precisions[0])
        result = evolve(result, backend=backend.release)
        place = len(results)
        results.append(result)
        tasks: list[TaskResult] = []
        engine: LoadedEngine | None = None
        with ExitStack() as stack:
            try:
                with WorkerPool().take(backend) as maker:  # quantizing may take more memory than answering
                    resolved = obtain(item.asked, self.store, maker)
                worker = stack.enter_context(WorkerPool().take(backend))
                results[place] = result = evolve(result, precision=resolved.artifact.precision)
                started = time.monotonic()
                engine = load_engine(ref, self.request, item.candidate, resolved, worker)
                result = evolve(result, load_s=time.monotonic() - started)
                result = evolve(result, context_length=engine.context_length, max_concurrency=engine.max_concurrency)
                settings = evolve(self.settings, before_run=self._teller(engine, remaining))
                for each in measure(engine, settings):
                    tasks.append(each)
                    results[place] = evolve(result, tasks=tasks, peak_memory_bytes=worker.peak_memory())
            except (BackendError, ModelError, UsageError) as error:  # an option may be one of another engine
                if isinstance(error, BackendError):
                    name_device(error, device)
                    if engine is not None:  # else loading has noted it, or the device was not used yet
                        failures.note(backend, device, error.message)
                results[place] = evolve(results[place], error=error.message)
                return error
            finally:
                remaining.end_item()
            failures.clear(str(device))
            results[place] = evolve(results[place], error="")
            self.save(engine, results[place])
        return None

    def _teller(self, engine: LoadedEngine, remaining: Remaining) -> Callable[[Task, int, int], None]:
        remaining.begin_item(self.settings.levels(engine))

        def tell(task: Task, at_once: int, number: int) -> None:
            left = remaining.before_run(task, at_once)
            many = f", {at_once} at once" if at_once > 1 else ""
            what = f"{engine.device} {engine.precision}: {task.name}{many}, {number} of {self.settings.runs(at_once)}"
            self.request.progress(f"{what}{left}")

        return tell


def _failed(candidate: Candidate, error: str, *, precision: str = "") -> Result:
    return Result.of_device(candidate.device, precision or candidate.precisions[0], error=error)

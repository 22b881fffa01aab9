"""Generate on every device that a model could run on, each time in a process of its own."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from attrs import evolve, field, frozen

from phi3_core.config.values import engine_options, value
from phi3_core.errors import ModelError, NoDeviceError, Phi3Error, UsageError, WrongAnswersError
from phi3_core.figures import failures
from phi3_core.loading import LoadedEngine, cpu_reference, load_engine
from phi3_core.model import Model
from phi3_core.models.known import known_of, stored_precisions
from phi3_core.models.ref import ModelRef, look_up
from phi3_core.models.request import ArtifactRequest, ModelRequest
from phi3_core.models.resolve import obtain
from phi3_core.models.sample import NAME as SAMPLE
from phi3_core.selection import Candidate, DeviceRequest, choose
from phi3_core.session import EngineSession
from phi3_core.store.store import Store
from phi3_core.surveys import Survey
from phi3_core.values import Device, Progress, no_progress
from phi3_core.worker.pool import WorkerPool

PROMPT = "What is the capital of France?"
VERDICTS = ("works", "wrong", "dead", "refused", "untried")
"""Verdicts on a device: it answers, it gives wrong answers, it fails, its engine refuses an option of the
configuration, or it has no weights to try it with."""
_TOKENS = 32


@frozen(kw_only=True)
class Trial:
    """The result of generating a short answer on one device at one precision."""

    device: str
    """The device as ``backend:device``."""
    precision: str
    model: str
    verdict: str
    """One of :data:`VERDICTS`."""
    error: str = ""
    """What failed, or why it was not tried."""
    remedy: str = ""
    text: str = ""
    """The answer to :data:`PROMPT`."""
    is_compared: bool = False
    """Whether its answers agreed with known ones; some weights have none."""
    load_s: float | None = None
    time_to_first_token_s: float | None = None
    decode_tokens_per_s: float | None = None
    last_lines: tuple[str, ...] = ()
    """The last lines that the process of a device that failed has printed."""


@frozen(kw_only=True)
class _Item:
    """A device, and what to try it with."""

    candidate: Candidate
    ref: ModelRef
    asked: ArtifactRequest


@frozen(kw_only=True)
class Trials:
    """The trials of the devices of a survey.

    Args:
        found: the survey.
        model: the model that the user has named. If it is None, the weights that the store has of the usual model are
            taken for each device, and ``sample`` where it has none.
        device: a device as ``--device`` takes it; ``auto`` for all, apart from those that are used only when named.
        offline: whether to use only files on this machine.
        progress: called with the current stage.
    """

    found: Survey
    model: str | None = None
    device: str = "auto"
    offline: bool = False
    progress: Progress = no_progress
    store: Store = field(factory=Store)

    def run(self) -> Iterator[Trial]:
        """Yield the trials, the best device first. Figures and failures are kept, as those of other answers are.

        Raises:
            UsageError: the model is named in a way that makes no sense.
            ModelError: the named model is unknown.
            NoDeviceError: no device matches the named one.
        """
        ref = self._usual() if self.model is None else look_up(self.model, self.store)
        for candidate in self._candidates(ref):
            done: list[Trial] = []
            for item in self._items(ref, candidate):
                trial = item if isinstance(item, Trial) else self._try(item)
                done.append(trial)
                yield trial
            self._remember(candidate, done)

    def _usual(self) -> ModelRef:
        """Return the model that commands use if none is named, or ``sample`` if that is a path that is gone."""
        with contextlib.suppress(Phi3Error):
            return look_up(value("model"), self.store)
        return look_up(SAMPLE, self.store)

    def _candidates(self, ref: ModelRef) -> tuple[Candidate, ...]:
        try:
            return choose(self.found, DeviceRequest(device=self.device), known_of(self.found, ref, self.store))
        except NoDeviceError:
            if self.device != "auto":
                raise
            return ()

    def _items(self, ref: ModelRef, candidate: Candidate) -> Iterator[_Item | Trial]:
        """Yield what to try a device with: each artifact in the store; if there is none, what would be chosen."""
        tried = [ref] if self.model is not None else [ref, look_up(SAMPLE, self.store)]
        for each in tried:
            try:
                asked = ArtifactRequest.of(self._request(each, candidate), each, candidate, chat=True)
            except ModelError as error:  # it does not fit the device's memory
                if each is tried[-1]:
                    yield _untried(candidate, each, candidate.precisions[0], error)
                continue
            stored = stored_precisions(each, asked, self.store)
            for precision in stored:
                yield _Item(candidate=candidate, ref=each, asked=evolve(asked, precisions=(precision,)))
            if stored:
                return
            if each is tried[-1] or each.form == "artifact":
                yield _Item(candidate=candidate, ref=each, asked=asked)
                return

    def _request(self, ref: ModelRef, candidate: Candidate) -> ModelRequest:
        def progress(stage: str, done: int | None = None, total: int | None = None) -> None:
            self.progress(f"{candidate.device}: {stage}", done, total)

        return ModelRequest(
            model=ref.name,
            device=DeviceRequest(device=str(candidate.device)),
            backend_options=engine_options(),
            purpose="answer",
            progress=progress,
            offline=self.offline,
            check_anew=True,
        )

    def _try(self, item: _Item) -> Trial:
        device, ref = item.candidate.device, item.ref
        trial = Trial(device=str(device), precision=item.asked.precisions[0], model=ref.name, verdict="works")
        backend = self.found.backend(device.backend)
        try:
            with WorkerPool().take(backend) as maker:  # quantizing may take more memory than answering
                resolved = obtain(item.asked, self.store, maker)
            trial = evolve(trial, precision=resolved.artifact.precision)
            with WorkerPool().take(backend) as worker:
                reference = cpu_reference(self.found, item.candidate, resolved, WorkerPool())
                request = self._request(ref, item.candidate)
                engine = load_engine(ref, request, item.candidate, resolved, worker, reference=reference)
                return _answered(evolve(trial, is_compared=engine.is_compared, load_s=engine.load_s), item, engine)
        except ModelError as error:
            return _untried(item.candidate, ref, trial.precision, error)
        except UsageError as error:
            return _refused(trial, device, error)
        except Phi3Error as error:
            verdict = "wrong" if isinstance(error, WrongAnswersError) else "dead"
            words, lines = error.message.removeprefix(f"{device}: "), error.last_lines
            remedy = error.hint or f"update its driver, and pip install --upgrade {backend.distribution}"
            return evolve(trial, verdict=verdict, error=words, remedy=remedy, last_lines=lines)

    def _remember(self, candidate: Candidate, done: list[Trial]) -> None:
        """Put a device last for a time if it failed at any precision; if it works, forget that it failed before."""
        device = candidate.device
        bad = [trial for trial in done if trial.verdict in ("wrong", "dead")]
        if bad:
            failures.note(self.found.backend(device.backend), device, bad[-1].error)
        elif any(trial.verdict == "works" for trial in done):
            failures.clear(str(device))


def _answered(trial: Trial, item: _Item, engine: LoadedEngine) -> Trial:
    """Return a trial with an answer.

    Raises:
        BackendError: the engine failed.
    """
    session = EngineSession(item.ref.name, [item.candidate], lambda _: engine, restarts=False)
    with Model(session) as model:
        reply = model.generate(PROMPT, max_new_tokens=_TOKENS)
    if not reply.completion_tokens:
        raise WrongAnswersError("generate ended the answer without a token")
    return evolve(
        trial,
        text=reply.text,
        time_to_first_token_s=reply.time_to_first_token_s,
        decode_tokens_per_s=reply.decode_tokens_per_s,
    )


def _refused(trial: Trial, device: Device, error: UsageError) -> Trial:
    """Return a trial whose engine refuses an option, which can only be one of the configuration."""
    options = [
        (f"options.{backend}.{name}", name)
        for backend, own in engine_options().items()
        for name in own
        if backend.casefold() == device.backend.casefold()
    ]
    said = [key for key, name in options if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", error.message)]
    removed = "; ".join(f"phi3 config unset {key}" for key in said or [key for key, _ in options])
    words = error.message.removeprefix(f"{device}: ")
    return evolve(trial, verdict="refused", error=f"its engine refuses what is configured: {words}", remedy=removed)


def _untried(candidate: Candidate, ref: ModelRef, precision: str, error: ModelError) -> Trial:
    hint = error.hint or f"phi3 models pull {ref.name} --device {candidate.device}"
    return Trial(
        device=str(candidate.device),
        precision=precision,
        model=ref.name,
        verdict="untried",
        error=error.message.removeprefix(f"{candidate.device}: "),
        remedy=hint,
    )

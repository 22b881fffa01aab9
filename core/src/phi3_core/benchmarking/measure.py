"""Measure one loaded engine: tasks, one answer at a time and several at once."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence

from attrs import field, frozen

from phi3_core.errors import BackendError
from phi3_core.evaluation.text import EVALUATION_TEXT
from phi3_core.loading import LoadedEngine
from phi3_core.pending import TICK_S
from phi3_core.quantization.calibration_text import CALIBRATION_TEXT
from phi3_core.values import GenerationRequest
from phi3_core.worker.call import Timing
from phi3_core.worker.generation import Generation

from .energy import EnergyMeter, counters
from .results import Spread, TaskResult
from .tasks import WARM_UP, Prompts, Task, clip

_FEWEST_TOKENS = 2
BeforeRun = Callable[[Task, int, int], object]
"""Called before each run with the task, the number of answers at once, and the run's number from 1 on."""


@frozen(kw_only=True)
class Settings:
    """How thoroughly to measure."""

    tasks: tuple[Task, ...]
    repeats: int = 3
    at_once: int = 8
    """The number of answers at once that are measured beside one at a time, if the engine takes several."""
    before_run: BeforeRun = field(default=lambda *_: None)

    def runs(self, at_once: int) -> int:
        """Return how often a task is run: a third as often if several answers share each run."""
        return self.repeats if at_once == 1 else math.ceil(self.repeats / 3)

    def levels(self, engine: LoadedEngine) -> tuple[int, ...]:
        """Return the numbers of answers at once to measure."""
        most = min(self.at_once, engine.max_concurrency)
        return (1, most) if most > 1 else (1,)


def measure(engine: LoadedEngine, settings: Settings) -> Iterator[TaskResult]:
    """Yield the result of each task, one answer at a time first. The first run of each kind is not counted.

    Raises:
        BackendError: the engine failed.
    """
    prompts = Prompts(engine.tokenizer.encode(f"{CALIBRATION_TEXT}\n{EVALUATION_TEXT}"))
    energy = counters(engine.device.kind)
    for at_once in settings.levels(engine):
        _run(engine, prompts, clip(WARM_UP, engine.context_length), at_once)
        for task in (clip(each, engine.context_length) for each in settings.tasks):
            firsts: list[float] = []
            tokens = 0
            speeds: list[float] = []
            meter = EnergyMeter(energy)
            for number in range(1, settings.runs(at_once) + 1):
                settings.before_run(task, at_once, number)
                timings, seconds = _run(engine, prompts, task, at_once)
                firsts += [timing.first_token_s for timing in timings]
                tokens += sum(timing.tokens for timing in timings)
                speeds.append(_speed(timings, seconds))
            joules = meter.joules() if energy else None
            yield TaskResult(
                task=task.name,
                prompt_tokens=task.prompt_tokens,
                new_tokens=task.new_tokens,
                clipped=task.clipped,
                at_once=at_once,
                first_token_s=Spread.of(firsts),
                decode_tokens_per_s=Spread.of(speeds),
                joules_per_token=joules and joules / tokens,
            )


def _run(engine: LoadedEngine, prompts: Prompts, task: Task, at_once: int) -> tuple[list[Timing], float]:
    """Generate answers at once, and return their timings and the seconds that all of them took."""
    requests = [
        # Prompt lookup would measure how often the text repeats itself.
        GenerationRequest(prompt_ids=prompts.take(task.prompt_tokens), max_new_tokens=task.new_tokens, lookup="off")
        for _ in range(at_once)
    ]
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        running = [engine.worker.start(request, vocabulary=engine.vocabulary) for request in requests]
        for generation in running:
            stack.callback(generation.close)
        for generation in running:
            _read(generation)
        seconds = time.perf_counter() - started
        timings = [generation.timing for generation in running]
    short = min(timing.tokens for timing in timings)
    if short < _FEWEST_TOKENS:
        raise BackendError(f"generate ended after {short} of {task.new_tokens} tokens, without a stop id")
    return timings, seconds


def _read(generation: Generation) -> None:
    for item in generation:
        if not isinstance(item, int):
            item.wait(TICK_S)


def _speed(timings: Sequence[Timing], seconds: float) -> float:
    if len(timings) == 1:
        return timings[0].decode_tokens_per_s
    return sum(timing.tokens for timing in timings) / seconds

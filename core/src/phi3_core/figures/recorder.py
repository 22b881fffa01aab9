"""Figures of real answers: taken without costing an answer anything, and written when nobody waits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from . import failures, record, stall
from .record import Samples
from .values import Figures

if TYPE_CHECKING:
    from phi3_core.worker.call import Timing

    from .conditions import LoadedArtifact

logger = logging.getLogger("phi3_core")

FEWEST_TOKENS = 16
"""Tokens of an answer from which on its speed of decoding counts."""
WRITE_AFTER_S = 60.0
"""How often the figures of a model that stays loaded are written."""
_REMEMBERED = 16
_LONGEST_END_S = 5.0
_LARGEST_REUSE = 0.1
"""The share of a prompt that an engine may know from earlier ones, if the time to the first token is to count."""


Limits = tuple[float | None, float | None]
"""Seconds for the first token, and for each other one; None if they are not known."""


class Answered(NamedTuple):
    """What happened in one answer of an engine."""

    prompt: Sequence[int]
    made: Sequence[int]
    timing: Timing
    alone: bool
    """Whether no other answer was generated meanwhile."""


class Recorder:
    """Collects the figures of one loaded engine.

    Args:
        loaded: what the engine has loaded.
        model: the name of the model in the store.
        load_s: the seconds that loading took.
    """

    def __init__(self, loaded: LoadedArtifact, model: str, *, load_s: float) -> None:
        self._loaded, self._subject, self._device = loaded, loaded.subject(model), str(loaded.device)
        self._lock = threading.RLock()  # the garbage collector may end an answer in any thread
        self._samples = Samples(load_s=(load_s,))
        self._before = self._figures_before()
        self._texts: list[tuple[int, ...]] = []
        self._works = False
        self._has_failed = failures.is_noted(self._device)
        self._background: threading.Thread | None = None
        self._written = time.monotonic()

    def _figures_before(self) -> Figures | None:
        found = record.read(self._subject)
        if found is None:
            return None
        today = self._loaded.conditions(found.conditions.runtime)
        figures = found.figures(today)
        return figures if figures.counted else None

    def stall_limits(self, prompt_tokens: int, *, context_length: int, at_once: int) -> Limits:
        """Return when the device counts as hung, by what it did before: see :func:`.stall.stall_limits`."""
        if self._before is None:
            return None, None
        return stall.stall_limits(self._before, prompt_tokens, context_length=context_length, at_once=at_once)

    def note(self, answered: Answered) -> None:
        """Take the figures of an answer, which may have been closed before its end."""
        timing = answered.timing
        if not timing.tokens:
            return
        with self._lock:
            heal, self._has_failed = self._has_failed, False
            self._works = True
            prompt = tuple(answered.prompt)
            beginning = prompt[: int(_LARGEST_REUSE * len(prompt)) + 1]
            anew = all(text[: len(beginning)] != beginning for text in self._texts)
            self._texts = [*self._texts[1 - _REMEMBERED :], (*prompt, *answered.made)]
            samples = Samples(time=time.time())
            if answered.alone:
                samples = Samples(
                    first_token=((len(prompt), timing.first_token_s),) if anew else (),
                    decode=(timing.decode_tokens_per_s,) if timing.tokens >= FEWEST_TOKENS and timing.decode_s else (),
                    time=samples.time,
                )
            self._samples = self._samples.add(samples)
            due = time.monotonic() - self._written >= WRITE_AFTER_S
            if due:
                self._written = time.monotonic()
        if heal or due:
            self._start(heal, due)

    def note_failure(self) -> None:
        """Take it that a failure of the device was noted, which the next answer's end makes forgotten."""
        with self._lock:
            self._has_failed = True

    def begin_close(self) -> None:
        """Begin to write what was collected, while the caller closes the engine."""
        if self._works and (self._background is None or not self._background.is_alive()):
            self._start(heal=False, due=True)

    def _start(self, heal: bool, due: bool) -> None:
        self._background = threading.Thread(target=self._in_background, args=(heal, due), daemon=True)
        self._background.start()

    def _in_background(self, heal: bool, due: bool) -> None:
        if heal:
            failures.clear(self._device)
        if due:
            self._write()

    def save_bench(self, figures: Figures) -> None:
        """Keep figures that were measured on purpose.

        Raises:
            OSError: the store cannot be written.
        """
        record.save_bench(self._subject, self._loaded.conditions(), figures)

    def close(self) -> None:
        """Write what was collected, if the store can be written."""
        background = self._background
        if background is not None:
            background.join(_LONGEST_END_S)
        self._write()

    def _write(self) -> None:
        with self._lock:
            samples, self._samples = self._samples, Samples()
            works = self._works
        if not works or samples == Samples():
            return
        try:
            record.add_answers(self._subject, self._loaded.conditions(), samples)
        except OSError as error:  # a store that is read-only, or full
            logger.debug("the figures are not kept: %s", error)

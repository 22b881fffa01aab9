"""Check an engine with known answers before the first answer is believed: see decision 43.

An artifact that was quantized here has known answers in its manifest. Any model continues a text that it has just read,
which tells about published weights, and about prompts that are longer than what drivers are tested with.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from attrs import field, frozen

from phi3_core.errors import BackendError, Phi3Error, WrongAnswersError
from phi3_core.figures.conditions import LoadedArtifact
from phi3_core.figures.values import Conditions
from phi3_core.values import Progress, no_progress

from . import copying, judge, passed
from .known import Chain, KnownAnswers, from_manifest
from .probe import Probe

if TYPE_CHECKING:
    from phi3_core.text.tokenizer import Tokenizer
    from phi3_core.worker.host import Worker

logger = logging.getLogger("phi3_core")

LONG = 2_200
"""Tokens of the long prompt. There are drivers that fail only beyond 2,000."""
_CPU_BUDGET_S, _BUDGET_S = 1.5, 20.0
_STEPS, _FEW_STEPS = 16, 8
_SHORT_PASSAGE = 48
"""Tokens of the passage that a CPU is asked to copy."""
_SHOWN = 12
"""Tokens of a wrong answer that are shown."""
_STATIC_PROMPT, _STATIC_ANSWER = 1_024, 1_024
"""The prompt that an NPU's smallest shape holds, and the tokens that it prepares for by default."""

Reference = Callable[[], "AbstractContextManager[Worker]"]
"""Loads the artifact on a CPU."""


@frozen(kw_only=True)
class Wrong:
    """What an engine said that is wrong."""

    prompt: Sequence[int]
    expected: Sequence[int]


@frozen(kw_only=True)
class Comparison:
    """The result of comparing answers with known ones."""

    is_decisive: bool
    """Whether the answers tell that the engine is right or wrong."""
    wrong: Wrong | None = None


@frozen(kw_only=True)
class Check:
    """The check of one loaded engine."""

    loaded: LoadedArtifact
    worker: Worker
    tokenizer: Tokenizer
    context_length: int
    purpose: str
    is_catalogued: bool = False
    """Whether the model is one of the catalogue, whose weights are known to be trained."""
    prompt_tokens: int | None = None
    """About how long the first prompt is; None if unknown."""
    reference: Reference | None = None
    anew: bool = False
    """Whether to check an engine that has passed before, too."""
    progress: Progress = field(default=no_progress)

    def run(self) -> bool:
        """Check the engine, unless it has passed under the same conditions.

        Returns:
            Whether answers of the engine were compared with known ones now.

        Raises:
            WrongAnswersError: the engine gives wrong answers.
            BackendError: the engine failed.
        """
        then = passed.before(self.loaded)
        has_passed = then is not None and not self._change(then)
        if has_passed and not self.anew:
            return False
        if not self._is_worth_it():
            return False
        self.progress("checking its answers")
        is_compared = False
        try:
            found = self._compare()
            if found.wrong is not None:
                if has_passed:
                    passed.forget(self.loaded)
                raise self._error(found.wrong, then)
            is_compared = found.is_decisive
        except BackendError:
            raise
        except Phi3Error as error:  # the engine takes no such prompt, or the text has tokens that the weights lack
            logger.debug("%s is not checked: %s", self.loaded.device, error.message)
        passed.note(self.loaded)
        return is_compared

    def _is_worth_it(self) -> bool:
        kind = self.loaded.device.kind
        if kind == "npu" and self.purpose == "answer" and (self.prompt_tokens or 0) > _STATIC_PROMPT // 2:
            return False  # it would be compiled for a short prompt first
        # It would be checked each time. A CPU's kernels are those that the known answers are from.
        return kind != "cpu" or self.anew or passed.can_note()

    # --- what is asked --------------------------------------------------------------------------------------------

    def _compare(self) -> Comparison:
        known = from_manifest(self.loaded.artifact.manifest)
        is_decisive = False
        if known is not None:
            found = self._compare_known(known)
            if found.wrong is not None:
                return found
            is_decisive = found.is_decisive
        is_cpu = self.loaded.device.kind == "cpu"
        if is_cpu and (known is not None or not self._is_published):
            return Comparison(is_decisive=is_decisive)
        found = self._compare_copy(decisive=known is None)
        return Comparison(is_decisive=is_decisive or found.is_decisive, wrong=found.wrong)

    @property
    def _is_published(self) -> bool:
        """Whether the weights are trained ones, as they were published."""
        source = self.loaded.artifact.manifest.get("source")
        return self.is_catalogued and isinstance(source, dict) and bool(source.get("repository"))

    def _compare_known(self, known: KnownAnswers) -> Comparison:
        probe, lost, worst = self._probe(self.worker), [], (-1.0, known.chains[0])
        for chain in self._ordered(known):
            expected = [step.ids[0] for step in chain.steps]
            steps = judge.losses(chain, probe.follow(known.ids[: chain.prompt], expected))
            lost += steps
            if sum(lost) > judge.DOUBTFUL:
                probe.extend(_BUDGET_S)
            worst = max(worst, (sum(steps), chain), key=lambda each: each[0])
        if not judge.is_wrong(lost):
            return Comparison(is_decisive=bool(lost))
        chain = worst[1]
        return _wrong(known.ids[: chain.prompt], [step.ids[0] for step in chain.steps])

    def _ordered(self, known: KnownAnswers) -> list[Chain]:
        """Return the chains; for a CPU, which reads slowly, those of the first eighth come first."""
        eighth = len(known.ids) // 8
        if self.loaded.device.kind != "cpu":
            return list(known.chains)
        # The longest of these first: the others begin as it does, and engines keep what they have read.
        early = [chain for chain in known.chains if chain.prompt <= eighth]
        return [*reversed(early), *(chain for chain in known.chains if chain.prompt > eighth)]

    def _compare_copy(self, *, decisive: bool) -> Comparison:
        """Compare copies of a short and of a long text.

        Args:
            decisive: whether the short one can be wrong, too; otherwise it only tells whether the model copies.
        """
        ids = self.tokenizer.encode(copying.PASSAGE)
        is_cpu = self.loaded.device.kind == "cpu"
        used, steps = (ids[:_SHORT_PASSAGE], _FEW_STEPS) if is_cpu else (ids, _STEPS)
        short = copying.question(used, len(used) + 10, steps)
        score = self._copies(self.worker, *short)
        if score is None:
            return Comparison(is_decisive=False)
        if score < judge.COPIES:
            is_fault = decisive and self._is_fault(score, short)
            return _wrong(*short) if is_fault else Comparison(is_decisive=False)
        if self.loaded.device.kind in {"cpu", "npu"} or LONG + steps > self.context_length:
            return Comparison(is_decisive=True)
        long = copying.question(ids, LONG, steps)
        score = self._copies(self.worker, *long)
        return Comparison(is_decisive=True) if score is None or score >= judge.COPIES / 2 else _wrong(*long)

    def _is_fault(self, score: float, short: tuple[list[int], list[int]]) -> bool:
        """Return whether a bad copy is the fault of the device, and not of the weights."""
        if self.reference is None:
            return self._is_published and score < judge.CANNOT
        try:
            with self.reference() as worker:
                other = self._copies(worker, *short)
        except Phi3Error as error:
            logger.debug("%s is not compared with the CPU: %s", self.loaded.device, error.message)
            return self._is_published and score < judge.CANNOT
        return other is not None and other >= judge.COPIES and score < other / 2

    def _copies(self, worker: Worker, prompt: Sequence[int], expected: Sequence[int]) -> float | None:
        return judge.share(self._probe(worker).follow(prompt, expected), expected)

    def _probe(self, worker: Worker) -> Probe:
        kind = self.loaded.device.kind
        return Probe(
            worker,
            vocabulary=self.tokenizer.id_count,
            context_length=self.context_length,
            answer_tokens=_STATIC_ANSWER if kind == "npu" else 1,
            budget_s=_CPU_BUDGET_S if kind == "cpu" else _BUDGET_S,
        )

    # --- what is said ---------------------------------------------------------------------------------------------

    def _error(self, wrong: Wrong, then: Conditions | None) -> WrongAnswersError:
        count = len(wrong.prompt)
        steps = min(_SHOWN, self.context_length - count)
        said = self._probe(self.worker).ask(wrong.prompt, max(1, steps))
        asked, said_text, wanted = (self._text(ids) for ids in (wrong.prompt[-8:], said, wrong.expected))
        where = f"after {count} tokens that end in {asked} it says {said_text}, and not {wanted}"
        return WrongAnswersError(
            f"{self._history(then)}: {where}", hint="update or go back to another driver; --no-check uses it anyway"
        )

    def _history(self, then: Conditions | None) -> str:
        backend, device = self.loaded.backend, self.loaded.device
        if then is not None and then.driver != device.driver:
            then_driver, now_driver = then.driver or "of unknown version", device.driver or "of unknown version"
            return f"it worked with the driver {then_driver}, and gives wrong answers with the driver {now_driver}"
        words = f"{backend.release} gives wrong answers"
        change = "" if then is None else self._change(then)
        return f"{words}, which it did not before ({change})" if change else words

    def _change(self, then: Conditions) -> str:
        """Return which of the conditions has changed since, as words; empty if none has."""
        return then.change(self.loaded.conditions(then.runtime))

    def _text(self, ids: Sequence[int]) -> str:
        return repr(self.tokenizer.decode(ids)) if ids else "nothing"


def _wrong(prompt: Sequence[int], expected: Sequence[int]) -> Comparison:
    return Comparison(is_decisive=True, wrong=Wrong(prompt=prompt, expected=expected))

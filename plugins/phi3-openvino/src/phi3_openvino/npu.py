"""OpenVINO's NPU pipeline, whose graphs have fixed shapes, on an NPU or, for tests, on the CPU.

A pipeline is compiled for prompts up to a length and for a number of further tokens. Prompt and answer together may
have as many tokens as both; genai ends an answer there without a word. Compiling takes long, so few shapes are used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from attrs import frozen
from phi3_core.errors import PromptTooLongError, UsageError
from phi3_core.values import Device

DEVICE = "NPU"
"""OpenVINO's name of the device, also for :data:`NPU_CPU`."""
NPU_CPU = "NPU-CPU"
"""The id of the device that runs the NPU pipeline on the CPU."""
PROMPT, ANSWER = "MAX_PROMPT_LEN", "MIN_RESPONSE_LEN"
"""OpenVINO GenAI's names for the two numbers of a shape."""
BUCKET = 1024
"""Prompt lengths are multiples of this number of tokens."""
_STEP = 64
"""The pipeline rounds both numbers of a shape up to multiples of this."""
_ROOM = {"answer": 512, "conversation": 1024}
# The pipeline on the CPU: one graph instead of many parts, and float32 as on the CPU device (docs/decisions/0017).
_ON_CPU = {"NPUW_DEVICES": "CPU", "NPUW_ONLINE_PIPELINE": "NONE", "INFERENCE_PRECISION_HINT": "f32"}


def runs_on(device: Device) -> bool:
    """Return whether a device runs the NPU pipeline."""
    return device.kind == "npu" or device.id == NPU_CPU


def _round_up(number: int, step: int) -> int:
    return math.ceil(number / step) * step


@frozen(kw_only=True)
class Shape:
    """The number of tokens that a pipeline is compiled for."""

    prompt: int
    """Longest prompt."""
    answer: int
    """Longest answer to the longest prompt."""

    def holds(self, prompt: int, new: int) -> bool:
        """Return whether a prompt of ``prompt`` tokens fits, with an answer of ``new``."""
        return prompt <= self.prompt and prompt + new <= self.prompt + self.answer


@frozen(kw_only=True)
class Shapes:
    """Chooses the shape for a request, the user's numbers first."""

    context: int
    """The model's context in tokens."""
    purpose: str
    """``answer`` or ``conversation``."""
    prompt: int | None
    """The user's ``MAX_PROMPT_LEN``, if any."""
    answer: int | None
    """The user's ``MIN_RESPONSE_LEN``, if any."""

    @property
    def longest(self) -> int:
        """Maximum number of tokens of prompt and answer together."""
        if self.prompt is None or self.answer is None:
            return self.context
        return min(self.context, self.prompt + self.answer)

    def smallest(self) -> Shape:
        """Return the shape for short prompts."""
        return self.fitting(1, 1)

    def fitting(self, prompt: int, new: int) -> Shape:
        """Return the smallest shape for a prompt of ``prompt`` tokens with an answer of ``new``.

        Together they fit ``longest``.

        Raises:
            PromptTooLongError: the user's number is too small for the prompt.
        """
        end = _round_up(self.context, _STEP)
        if self.prompt is None:
            needed = prompt if self.answer is None else max(prompt, prompt + new - self.answer)
            length = min(_round_up(needed, BUCKET), end)
        elif prompt > self.prompt:
            raise PromptTooLongError(
                f"the prompt has {prompt} tokens, and {PROMPT} is {self.prompt}",
                hint=f"leave it out, or --option {PROMPT}={min(_round_up(prompt, BUCKET), end)}",
            )
        else:
            length = self.prompt
        if self.answer is not None:
            return Shape(prompt=length, answer=self.answer)
        room = _ROOM.get(self.purpose, _STEP)
        missing = prompt + new - length
        if missing > room:
            room = _round_up(missing, BUCKET)
        return Shape(prompt=length, answer=min(room, max(end - length, _STEP)))


def numbers(options: Mapping[str, str]) -> dict[str, int]:
    """Return the options that are numbers of a shape as numbers, which OpenVINO GenAI requires.

    Raises:
        UsageError: one of them is not a positive number.
    """
    found = {}
    for key in (PROMPT, ANSWER):
        if key in options:
            text = options[key]
            if not text.isdecimal() or not int(text):
                raise UsageError(f"the option {key} is a number of tokens, not {text!r}")
            found[key] = int(text)
    return found


def pipeline_properties(device: Device, shapes: Shapes, shape: Shape) -> dict[str, Any]:
    """Return the default properties of a pipeline. The reasons are in docs/decisions/0020."""
    conversation = shapes.purpose == "conversation"
    embedded = not conversation and shape == shapes.smallest()
    return {
        **(_ON_CPU if device.id == NPU_CPU else {}),
        PROMPT: shape.prompt,
        ANSWER: shape.answer,
        # The long name, which gives way to both names that a user may write.
        "NPUW_LLM_GENERATE_HINT": "BEST_PERF" if conversation else "FAST_COMPILE",
        "NPUW_LLM_ENABLE_PREFIX_CACHING": "YES" if conversation else "NO",
        "CACHE_MODE": "OPTIMIZE_SPEED" if embedded else "OPTIMIZE_SIZE",
    }


def logits_properties(device: Device, tokens: int) -> dict[str, Any]:
    """Return the default properties for compiling a graph that returns the logits of all of ``tokens`` positions."""
    return {
        **(_ON_CPU if device.id == NPU_CPU else {}),
        "NPU_USE_NPUW": "YES",
        "NPUW_LLM": "YES",
        "NPUW_LLM_BATCH_DIM": 0,
        "NPUW_LLM_SEQ_LEN_DIM": 2,
        "NPUW_LLM_MAX_PROMPT_LEN": _round_up(tokens, _STEP),
        "NPUW_LLM_MIN_RESPONSE_LEN": _STEP,
        "NPUW_LLM_PREFILL_HINT": "STATIC",
        # Else only the last position's logits are computed.
        "NPUW_LLM_SHARED_HEAD": "NO",
        "NPUW_SLICE_OUT": "NO",
    }

"""Checks of weights, device and options before loading."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from phi3_core.backend import read_limits
from phi3_core.errors import ModelError, UsageError
from phi3_core.values import Artifact, Device

from . import longrope, weights

# OpenVINO GenAI's defaults for the NPU, whose graphs have fixed shapes.
_NPU_PROMPT, _NPU_ANSWER = 1024, 128
logger = logging.getLogger("phi3_core.openvino")


@frozen(kw_only=True)
class Opening:
    """How to load an artifact."""

    file: Path
    """An IR's ``.xml`` file, or a GGUF file."""
    context: int
    """Tokens of prompt and answer together."""
    longest_prompt: int | None
    """Longest prompt of the NPU's graph, in tokens; None on other devices."""
    longrope_limit: int | None
    """Longer sequences need the long form of the graph (``longrope.py``); None if there is only one form."""
    properties: Mapping[str, Any]
    """The user's options, converted to OpenVINO's types."""


def check(artifact: Artifact, device: Device, options: Mapping[str, str]) -> Opening:
    """Return how to load an artifact.

    Args:
        artifact: the artifact.
        device: the device to load it on.
        options: properties of OpenVINO or of the pipeline.

    Raises:
        ModelError: there are no weights that OpenVINO GenAI supports, or their context length is unknown.
        UsageError: an option is not a number as required, or the NPU's context exceeds LongRoPE's original context.
    """
    file = weights.find(artifact.path)
    if file is None:
        raise ModelError(f"{artifact.path} holds neither {weights.IR} nor one GGUF file")
    properties: dict[str, Any] = dict(options)
    limits = read_limits(artifact)
    context, original = limits.require_context_length(), limits.longrope_limit
    longest = changes_at = None
    if device.kind == "npu":
        # OpenVINO GenAI requires numbers for these two.
        properties |= {key: _number(options, key) for key in ("MAX_PROMPT_LEN", "MIN_RESPONSE_LEN") if key in options}
        longest = properties.get("MAX_PROMPT_LEN", _NPU_PROMPT)
        context = longest + properties.get("MIN_RESPONSE_LEN", _NPU_ANSWER)
        if original is not None and context > original:
            raise UsageError(
                f"on the NPU prompt and answer of this model have to fit into {original} tokens, not {context}",
                hint="give --option MAX_PROMPT_LEN a smaller number",
            )
    elif original is not None:
        if file.name == weights.IR and longrope.chooses(file):
            changes_at = original
        else:
            # Graphs of optimum-intel give wrong results when a cached sequence or a chunked prompt crosses the limit.
            words = "the context is limited to %d tokens: beyond, only what phi3 quantize makes is known to be right"
            logger.warning(words, original)
            context = original
    return Opening(file=file, context=context, longest_prompt=longest, longrope_limit=changes_at, properties=properties)


def _number(options: Mapping[str, str], key: str) -> int:
    try:
        return int(options[key])
    except ValueError:
        raise UsageError(f"the option {key} is a number, not {options[key]!r}") from None

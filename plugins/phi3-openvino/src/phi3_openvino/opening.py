"""What can be said of weights, a device and the options before OpenVINO sees them."""

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

# OpenVINO GenAI's own defaults for the NPU, whose graphs have fixed shapes.
_NPU_PROMPT, _NPU_ANSWER = 1024, 128
logger = logging.getLogger("phi3_core.openvino")


@frozen(kw_only=True)
class Opening:
    """How weights are loaded."""

    file: Path
    """An IR's ``.xml``, or a GGUF file."""
    context: int
    """Tokens of prompt and answer together."""
    longest_prompt: int | None
    """What the NPU's graph was made for; None on other devices."""
    longrope_limit: int | None
    """Sequences longer than this want the long form of the graph (``longrope.py``); None if there is one form."""
    properties: Mapping[str, Any]
    """The user's options, in OpenVINO's types."""


def check(artifact: Artifact, device: Device, options: Mapping[str, str]) -> Opening:
    """How ``artifact`` is loaded on ``device``; ``options`` are OpenVINO's properties.

    Raises:
        ModelError: there are no weights that OpenVINO GenAI loads, or they do not say how long their context is.
        UsageError: an option that should be a number is none.
    """
    file = weights.find(artifact.path)
    if file is None:
        raise ModelError(f"{artifact.path} holds neither {weights.IR} nor one GGUF file")
    properties: dict[str, Any] = dict(options)
    limits = read_limits(artifact)
    context, original = limits.require_context_length(), limits.longrope_limit
    longest = changes_at = None
    if device.kind == "npu":
        # These two are read as numbers, not as text.
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
            # Graphs by optimum-intel are wrong where a cache from before the limit, or a prompt in pieces, crosses it.
            words = "the context is limited to %d tokens: beyond, only what phi3 quantize makes is known to be right"
            logger.warning(words, original)
            context = original
    return Opening(file=file, context=context, longest_prompt=longest, longrope_limit=changes_at, properties=properties)


def _number(options: Mapping[str, str], key: str) -> int:
    try:
        return int(options[key])
    except ValueError:
        raise UsageError(f"the option {key} is a number, not {options[key]!r}") from None

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

from . import longrope, npu, weights

logger = logging.getLogger("phi3_core.openvino")


@frozen(kw_only=True)
class Opening:
    """How to load an artifact."""

    file: Path
    """An IR's ``.xml`` file, or a GGUF file."""
    context: int
    """Tokens of prompt and answer together."""
    shapes: npu.Shapes | None
    """Chooses the shape of the NPU's graph; None on other devices."""
    longrope_limit: int | None
    """Longer sequences need the long form of the graph (``longrope.py``); None if there is only one form."""
    vocabulary: int | None
    """The number of tokens that the weights know; None if unknown."""
    properties: Mapping[str, Any]
    """The user's options, converted to OpenVINO's types."""


def check(artifact: Artifact, device: Device, options: Mapping[str, str], purpose: str) -> Opening:
    """Return how to load an artifact.

    Args:
        artifact: the artifact.
        device: the device to load it on.
        options: properties of OpenVINO or of the pipeline.
        purpose: ``answer``, ``conversation`` or ``evaluation``.

    Raises:
        ModelError: there are no weights that OpenVINO GenAI supports, or their context length is unknown.
        UsageError: an option is not a number as required, or exceeds the context.
    """
    file = weights.find(artifact.path)
    if file is None:
        raise ModelError(f"{artifact.path} holds neither {weights.IR} nor one GGUF file")
    properties: dict[str, Any] = dict(options)
    limits = read_limits(artifact)
    context, original = limits.require_context_length(), limits.longrope_limit
    shapes = changes_at = None
    if npu.runs_on(device):
        if original is not None and original < context:
            # The NPU pipeline takes the factors by the last position of each pass, and keeps the keys of earlier ones.
            logger.warning("the context is limited to %d tokens: the NPU has one form of this model's graph", original)
            context = original
        given = npu.numbers(options)
        properties |= given
        if sum(given.values()) > context and original is not None:
            raise UsageError(
                f"on the NPU prompt and answer of this model have to fit into {context} tokens, not "
                f"{sum(given.values())}",
                hint=f"give {' and '.join(f'--option {key}' for key in given)} a smaller number, or leave it out",
            )
        numbers = {"prompt": given.get(npu.PROMPT), "answer": given.get(npu.ANSWER)}
        shapes = npu.Shapes(context=context, purpose=purpose, **numbers)
        context = shapes.longest
    elif original is not None:
        if file.name == weights.IR and longrope.chooses(file):
            changes_at = original
        else:
            # Graphs of optimum-intel give wrong results when a cached sequence or a chunked prompt crosses the limit.
            words = "the context is limited to %d tokens: beyond, only what phi3 quantize makes is known to be right"
            logger.warning(words, original)
            context = original
    return Opening(
        file=file,
        context=context,
        shapes=shapes,
        longrope_limit=changes_at,
        vocabulary=weights.vocabulary(file),
        properties=properties,
    )

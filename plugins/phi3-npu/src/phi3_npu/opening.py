"""Checks of an artifact before the runtime is imported, which takes seconds."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from phi3_core.backend import check_options, read_limits
from phi3_core.errors import ModelError
from phi3_core.values import Artifact

from . import weights

logger = logging.getLogger("phi3_core.npu")


def check(artifact: Artifact, options: Mapping[str, str]) -> int:
    """Check that an artifact can be loaded and return its context length in tokens.

    Raises:
        ModelError: there are no weights of this backend, or they are damaged.
        UsageError: there are options; the library has none.
    """
    check_options("npu", options, known=())
    found = weights.recognize(artifact.path)
    if found != artifact.precision:
        raise ModelError(f"{artifact.path} holds {found or 'no'} weights for npu, not {artifact.precision}")
    limits = read_limits(artifact)
    known, original = limits.require_context_length(), limits.longrope_limit
    if original is not None:
        # A KV cache filled before the limit is invalid beyond it.
        logger.warning("the context is limited to %d tokens: longrope's longer ones come out wrong so far", original)
    return original or known

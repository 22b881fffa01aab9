"""A request in the words of ONNX Runtime GenAI."""

from __future__ import annotations

import json
from typing import Any

from phi3_core.errors import UsageError
from phi3_core.values import GenerationRequest

from .forward import line


def search_options(request: GenerationRequest | None, done: int) -> dict[str, Any]:
    """Return the search options of a request, of whose answer ``done`` tokens exist already; they shift the seed."""
    if request is None:
        return {"do_sample": False}
    sampling = request.sampling
    found: dict[str, Any] = {"do_sample": sampling.temperature > 0, "repetition_penalty": sampling.repetition_penalty}
    if sampling.temperature > 0:
        found |= {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
        if sampling.seed is not None:
            found["random_seed"] = (sampling.seed + done) % (1 << 31)
    return found


def guide(settings: Any, schema: str) -> None:
    """Let a generator's settings follow a JSON schema.

    Raises:
        UsageError: it is none.
    """
    try:
        json.loads(schema)
        settings.set_guidance("json_schema", schema)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"the JSON schema is not one: {line(error)}") from error

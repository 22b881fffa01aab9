"""What OpenAI's dialects have in common."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from phi3_core import __version__

from . import descriptions
from .errors import ApiError, openai_form
from .streaming import event

if TYPE_CHECKING:
    from phi3_core.text.logprobs import TokenLogprob

    from .calls import Finished, Usage

DONE = b"data: [DONE]\n\n"
"""The end of a stream."""

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
ERRORS = descriptions.errors(_ERROR)
"""The errors of a route, for the server's description."""
RESPONSES = descriptions.responses(_ERROR)
"""The responses of a route that answers whole or as a stream."""


class Head:
    """What the parts of one answer have in common.

    Args:
        prefix: of the answer's id.
        kind: OpenAI's name for such an object.
        model: the name by which the model was asked.
    """

    def __init__(self, prefix: str, kind: str, model: str) -> None:
        fields = {"id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}
        self._fields: dict[str, Any] = fields

    def document(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Return the answer, or a part of it."""
        return {**self._fields, "choices": choices, **more}


def error_event(error: ApiError) -> bytes:
    """Return the last event of a stream that failed."""
    return event(openai_form(error, ""))


def usage(tokens: Usage) -> dict[str, Any]:
    """Return the number of tokens."""
    total = tokens.prompt_tokens + tokens.completion_tokens
    return {
        "prompt_tokens": tokens.prompt_tokens,
        "completion_tokens": tokens.completion_tokens,
        "total_tokens": total,
    }


def logprobs(tokens: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """Return tokens with their logarithmic probabilities, as chat has them."""
    return [{**_logprob(each), "top_logprobs": [_logprob(other) for other in each.top]} for each in tokens]


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    return {
        "token": token.token,
        "bytes": None if token.bytes is None else list(token.bytes),
        "logprob": token.logprob,
    }


def origin(end: Finished) -> dict[str, Any]:
    """Return which engine has answered, and how fast."""
    return {
        "system_fingerprint": f"phi3-core {__version__} {end.device} {end.precision}",
        "phi3": {
            "device": end.device,
            "precision": end.precision,
            "time_to_first_token_s": end.time_to_first_token_s,
            "decode_tokens_per_s": end.decode_tokens_per_s,
        },
    }

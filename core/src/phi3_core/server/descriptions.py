"""What the server's description says of the responses of a route."""

from __future__ import annotations

from typing import Any

Responses = dict[int | str, dict[str, Any]]
_ANSWER = {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": {"type": "string"}}}
_ERRORS = {"4XX": "The request is refused", "5XX": "The server or its engine cannot answer"}


def errors(schema: dict[str, Any]) -> Responses:
    """Return the errors of a route, whose bodies follow ``schema``."""
    return {
        status: {"description": words, "content": {"application/json": {"schema": schema}}}
        for status, words in _ERRORS.items()
    }


def responses(schema: dict[str, Any]) -> Responses:
    """Return the responses of a route that answers whole or as a stream; those for errors follow ``schema``."""
    return {200: {"description": "The answer", "content": _ANSWER}, **errors(schema)}

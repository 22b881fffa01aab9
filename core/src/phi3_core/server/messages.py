"""``/v1/messages``: Anthropic's interface, whole and as a stream."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from . import descriptions
from .answer_events import stream, whole
from .calls import Event, Finished, TextDelta, ToolCallDelta, Usage
from .errors import FORMS, ApiError
from .messages_request import CountRequest, MessagesRequest
from .streaming import EventStream, complete, event, json_response

if TYPE_CHECKING:
    from .answering import Answering

PATH = "/v1/messages"
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    503: "overloaded_error",
}
_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_RESPONSES = descriptions.responses({"type": "object"})


def error_form(error: ApiError, request_id: str) -> dict[str, Any]:
    """Return Anthropic's form of an error."""
    kind = _KINDS.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    return {
        "type": "error",
        "error": {"type": kind, "message": error.message},
        **({"request_id": request_id} if request_id else {}),
    }


FORMS[PATH] = error_form


def router(answering: Answering) -> APIRouter:
    """Return the routes of this dialect."""
    routes = APIRouter()

    @routes.post(PATH, response_class=Response, responses=_RESPONSES)
    async def messages(body: MessagesRequest, request: Request) -> Response:
        """Answer a conversation."""
        call, made = body.call(), MessageEvents(body.model)
        if body.stream:
            return EventStream(request, stream(answering, call, made), _error_event)
        return await complete(request, whole(answering, call, made))

    @routes.post(f"{PATH}/count_tokens", response_class=Response, responses=_RESPONSES)
    async def count_tokens(body: CountRequest, request: Request) -> Response:
        """Count the tokens of a conversation."""

        async def count() -> Response:
            return json_response({"input_tokens": await answering.count_tokens(body.call())})

        return await complete(request, count())

    return routes


def _error_event(error: ApiError) -> bytes:
    return event(error_form(error, ""), "error")


class MessageEvents:
    """Makes the events of one message from those of its answer."""

    def __init__(self, model: str) -> None:
        self._id = f"msg_{secrets.token_hex(12)}"
        self._model = model
        self._content: list[dict[str, Any]] = []
        self._open = False
        self._end: Finished | None = None

    def begin(self) -> Iterator[dict[str, Any]]:
        """Yield the first event."""
        yield {"type": "message_start", "message": self.document()}

    def fail(self, error: ApiError) -> Iterator[dict[str, Any]]:
        """Yield the event of an error that ends the answer."""
        yield error_form(error, "")

    def push(self, each: Event) -> Iterator[dict[str, Any]]:
        """Yield the events that an event of the answer makes."""
        if isinstance(each, TextDelta):
            if not self._open or self._content[-1]["type"] != "text":
                yield from self._begin({"type": "text", "text": "", "citations": None})
            self._content[-1]["text"] += each.text
            yield self._delta({"type": "text_delta", "text": each.text})
        elif isinstance(each, ToolCallDelta):
            # Calls come whole: see toolparser.
            block = {"type": "tool_use", "id": each.id, "name": each.name, "input": {}, "caller": {"type": "direct"}}
            yield from self._begin(block)
            yield self._delta({"type": "input_json_delta", "partial_json": each.arguments})
            self._content[-1]["input"] = json.loads(each.arguments)
        else:
            yield from self._finish(each)

    def _begin(self, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from self._close()
        self._content.append(block)
        self._open = True
        yield {"type": "content_block_start", "index": len(self._content) - 1, "content_block": block}

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": len(self._content) - 1, "delta": delta}

    def _close(self) -> Iterator[dict[str, Any]]:
        if self._open:
            self._open = False
            yield {"type": "content_block_stop", "index": len(self._content) - 1}

    def _finish(self, end: Finished) -> Iterator[dict[str, Any]]:
        yield from self._close()
        self._end = end
        message = self.document()
        delta = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
        yield {"type": "message_delta", "delta": delta, "usage": message["usage"]}
        yield {"type": "message_stop"}

    def document(self) -> dict[str, Any]:
        """Return the message as it is now."""
        end = self._end
        stopped = None if end is None else end.stop_string
        reason = None if end is None else "stop_sequence" if stopped is not None else _REASONS[end.reason]
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": self._content,
            "stop_reason": reason,
            "stop_sequence": stopped,
            "stop_details": None,
            "container": None,
            "usage": _usage(end.usage if end else None),
        }


def _usage(usage: Usage | None) -> dict[str, Any]:
    """Return the number of tokens. That of the prompt is known at the end only."""
    return {
        "input_tokens": usage.prompt_tokens if usage else 0,
        "output_tokens": usage.completion_tokens if usage else 0,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": None,
        "output_tokens_details": None,
        "server_tool_use": None,
        "service_tier": "standard",
        "inference_geo": None,
    }

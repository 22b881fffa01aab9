"""``/v1/responses``: OpenAI's newer interface, whole and as a stream. Nothing is kept between requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from . import openai
from .answer_events import stream, whole
from .errors import ApiError
from .responses_events import ResponseEvents
from .responses_request import ResponsesRequest
from .streaming import EventStream, complete

if TYPE_CHECKING:
    from .answering import Answering


def router(answering: Answering) -> APIRouter:
    """Return the routes of this dialect."""
    routes = APIRouter()

    @routes.post("/v1/responses", response_class=Response, responses=openai.RESPONSES)
    async def responses(body: ResponsesRequest, request: Request) -> Response:
        """Answer a conversation."""
        call = body.call()
        made = ResponseEvents(body, answering.defaults)
        if body.stream:
            return EventStream(request, stream(answering, call, made), openai.error_event)
        return await complete(request, whole(answering, call, made))

    @routes.api_route(
        "/v1/responses/{number:path}",
        methods=["GET", "POST", "DELETE"],
        response_class=Response,
        responses=openai.ERRORS,
        include_in_schema=False,
    )
    async def kept(number: str) -> Response:
        """Refuse what needs a response that was kept."""
        raise ApiError(404, f"there is no response {number[:80]!r}: responses are not kept", code="response_not_found")

    return routes

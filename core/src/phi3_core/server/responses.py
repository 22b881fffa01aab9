"""``/v1/responses``: OpenAI's newer interface, whole and as a stream. Nothing is kept between requests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from . import openai
from .calls import ChatCall
from .errors import ApiError, api_error
from .responses_events import ResponseEvents
from .responses_request import ResponsesRequest
from .streaming import EventStream, complete, event, json_response

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
            return EventStream(request, _stream(answering, call, made), openai.error_event)
        return await complete(request, _whole(answering, call, made))

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


async def _whole(answering: Answering, call: ChatCall, made: ResponseEvents) -> Response:
    async with contextlib.aclosing(answering.events(call)) as events:
        async for each in events:
            for _ in made.push(each):
                pass
    return json_response(made.response())


async def _stream(answering: Answering, call: ChatCall, made: ResponseEvents) -> AsyncGenerator[bytes, None]:
    begun = False
    try:
        async with contextlib.aclosing(answering.events(call)) as events:
            async for each in events:
                # The first events wait for the first one of the answer: what goes wrong before has a status of its own.
                if not begun:
                    begun = True
                    for first in made.begin():
                        yield event(first, first["type"])
                for following in made.push(each):
                    yield event(following, following["type"])
    except Exception as error:
        if not begun:
            raise
        for last in made.fail(api_error(error)):
            yield event(last, last["type"])

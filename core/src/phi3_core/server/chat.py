"""``/v1/chat/completions``: OpenAI's chat, whole and as a stream."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from . import openai
from .calls import ChatCall, Event, TextDelta, ToolCallDelta, Usage
from .chat_request import ChatRequest
from .gathering import Choice, gather
from .openai import Head
from .streaming import EventStream, complete, event, json_response

if TYPE_CHECKING:
    from phi3_core.text.logprobs import TokenLogprob

    from .answering import Answering


def router(answering: Answering) -> APIRouter:
    """Return the routes of this dialect."""
    routes = APIRouter()

    @routes.post("/v1/chat/completions", response_class=Response, responses=openai.RESPONSES)
    async def create_chat_completion(request: Request, asked: ChatRequest) -> Response:
        """Answer a conversation."""
        call = asked.call()
        head = Head("chatcmpl", "chat.completion.chunk" if asked.stream else "chat.completion", asked.model)
        if asked.stream:
            chunks = _chunks(answering.events(call), head, call, includes_usage=asked.includes_usage)
            return EventStream(request, chunks, openai.error_event)
        return await complete(request, _whole(answering.events(call), head, call))

    return routes


async def _whole(events: AsyncGenerator[Event, None], head: Head, call: ChatCall) -> Response:
    answers = await gather(events, call.n)
    choices = [
        {
            "index": index,
            "message": _message(each),
            "logprobs": _logprobs(each.tokens, call),
            "finish_reason": each.end.reason,
        }
        for index, each in enumerate(answers)
    ]
    usage = sum((each.end.usage for each in answers), start=Usage(prompt_tokens=0, completion_tokens=0))
    more = {"usage": openai.usage(usage), **openai.origin(answers[0].end)}
    return json_response(head.document(choices, **more))


def _logprobs(tokens: Iterable[TokenLogprob], call: ChatCall) -> dict[str, Any] | None:
    return {"content": openai.logprobs(tokens), "refusal": None} if call.logprobs else None


def _message(answer: Choice) -> dict[str, Any]:
    text, made = answer.text, answer.tool_calls
    message: dict[str, Any] = {"role": "assistant", "content": text or (None if made else "")}
    message |= {"refusal": None, "annotations": []}
    if made:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in made
        ]
    return message


async def _chunks(
    events: AsyncGenerator[Event, None], head: Head, call: ChatCall, *, includes_usage: bool
) -> AsyncGenerator[bytes, None]:
    no_usage: dict[str, Any] = {"usage": None} if includes_usage else {}
    begun: set[int] = set()
    total = Usage(prompt_tokens=0, completion_tokens=0)

    def chunk(
        index: int,
        delta: dict[str, Any],
        reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
        **more: Any,
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return event(head.document([choice], **no_usage, **more))

    async with contextlib.aclosing(events):
        async for each in events:
            if each.choice not in begun:
                begun.add(each.choice)
                yield chunk(each.choice, {"role": "assistant", "content": "", "refusal": None})
            if isinstance(each, TextDelta):
                yield chunk(each.choice, {"content": each.text}, logprobs=_logprobs(each.logprobs, call))
            elif isinstance(each, ToolCallDelta):
                yield chunk(each.choice, {"tool_calls": [_tool_delta(each)]})
            else:
                total += each.usage
                yield chunk(each.choice, {}, each.reason, **openai.origin(each))
    if includes_usage:
        yield event(head.document([], usage=openai.usage(total)))
    yield openai.DONE


def _tool_delta(delta: ToolCallDelta) -> dict[str, Any]:
    function: dict[str, str] = {"arguments": delta.arguments}
    if delta.name is not None:
        function = {"name": delta.name, **function}
    begun = {"id": delta.id, "type": "function"} if delta.id is not None else {}
    return {"index": delta.index, **begun, "function": function}

"""``/v1/chat/completions``: OpenAI's chat, whole and as a stream."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from . import openai
from .calls import ChatCall, Event, Finished, TextDelta, ToolCallDelta, Usage
from .chat_request import ChatRequest
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
    texts: list[list[str]] = [[] for _ in range(call.n)]
    tokens: list[list[TokenLogprob]] = [[] for _ in range(call.n)]
    tools: list[dict[int, dict[str, str]]] = [{} for _ in range(call.n)]
    ends: dict[int, Finished] = {}
    async with contextlib.aclosing(events):
        async for each in events:
            if isinstance(each, TextDelta):
                texts[each.choice].append(each.text)
                tokens[each.choice] += each.logprobs
            elif isinstance(each, ToolCallDelta):
                made = tools[each.choice].setdefault(each.index, {"id": "", "name": "", "arguments": ""})
                made["id"] += each.id or ""
                made["name"] += each.name or ""
                made["arguments"] += each.arguments
            else:
                ends[each.choice] = each
    choices = [
        {
            "index": index,
            "message": _message("".join(texts[index]), tools[index]),
            "logprobs": _logprobs(tokens[index], call),
            "finish_reason": ends[index].reason,
        }
        for index in range(call.n)
    ]
    usage = sum((end.usage for end in ends.values()), start=Usage(prompt_tokens=0, completion_tokens=0))
    more = {"usage": openai.usage(usage), **openai.origin(ends[0])}
    return json_response(head.document(choices, **more))


def _logprobs(tokens: Iterable[TokenLogprob], call: ChatCall) -> dict[str, Any] | None:
    return {"content": openai.logprobs(tokens), "refusal": None} if call.logprobs else None


def _message(text: str, tools: dict[int, dict[str, str]]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text or (None if tools else "")}
    message |= {"refusal": None, "annotations": []}
    if tools:
        message["tool_calls"] = [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
            for _, call in sorted(tools.items())
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

"""``/v1/completions``: text that goes on, whole and as a stream."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING, Any

from attrs import evolve
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from . import openai
from .answering import merged
from .calls import ChatCall, Event, Finished, TextDelta, Usage
from .completion_request import CompletionRequest
from .gathering import gather
from .openai import Head
from .streaming import EventStream, complete, event, json_response

if TYPE_CHECKING:
    from phi3_core.text.logprobs import TokenLogprob

    from .answering import Answering

_KIND = "text_completion"


def router(answering: Answering) -> APIRouter:
    """Return the routes of this dialect."""
    routes = APIRouter()

    @routes.post("/v1/completions", response_class=Response, responses=openai.RESPONSES)
    async def create_completion(request: Request, asked: CompletionRequest) -> Response:
        """Continue one or more texts."""
        calls, head = asked.calls(), Head("cmpl", _KIND, asked.model)
        events = merged([_numbered(answering.events(call), index * call.n) for index, call in enumerate(calls)])
        if asked.stream:
            chunks = _chunks(events, head, calls, includes_usage=asked.includes_usage)
            return EventStream(request, chunks, openai.error_event)
        return await complete(request, _whole(events, head, calls))

    return routes


async def _numbered(events: AsyncGenerator[Event, None], first: int) -> AsyncGenerator[Event, None]:
    """Yield events with their choices counted from ``first``."""
    async with contextlib.aclosing(events):
        async for each in events:
            yield evolve(each, choice=first + each.choice)


async def _whole(events: AsyncGenerator[Event, None], head: Head, calls: list[ChatCall]) -> Response:
    answers = await gather(events, len(calls) * calls[0].n)
    choices = [
        _choice(index, each.text, each.end.reason, _logprobs(each.tokens, calls[0]))
        for index, each in enumerate(answers)
    ]
    usage = openai.usage(_total({index: each.end for index, each in enumerate(answers)}, calls))
    return json_response(head.document(choices, usage=usage, **openai.origin(answers[0].end)))


def _total(ends: dict[int, Finished], calls: list[ChatCall]) -> Usage:
    """Return the usage of all: each prompt counts once."""
    n = calls[0].n
    prompts = sum(ends[index * n].usage.prompt_tokens for index in range(len(calls)))
    return Usage(prompt_tokens=prompts, completion_tokens=sum(end.usage.completion_tokens for end in ends.values()))


def _choice(index: int, text: str, reason: str | None, logprobs: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _logprobs(tokens: Iterable[TokenLogprob], call: ChatCall) -> dict[str, Any] | None:
    """Return tokens with their logarithmic probabilities in the form that completions have."""
    if not call.logprobs:
        return None
    tokens = tuple(tokens)
    return {
        "tokens": [_name(each) for each in tokens],
        "token_logprobs": [each.logprob for each in tokens],
        # The chosen token is always among them.
        "top_logprobs": [{_name(other): other.logprob for other in (*each.top, each)} for each in tokens],
        "text_offset": [each.start for each in tokens],
    }


def _name(token: TokenLogprob) -> str:
    """Return a token's text; of a part of a character the bytes, as OpenAI writes them."""
    if token.bytes is None or token.token.encode() == token.bytes:
        return token.token
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.bytes)


async def _chunks(
    events: AsyncGenerator[Event, None], head: Head, calls: list[ChatCall], *, includes_usage: bool
) -> AsyncGenerator[bytes, None]:
    no_usage: dict[str, Any] = {"usage": None} if includes_usage else {}
    ends: dict[int, Finished] = {}
    async with contextlib.aclosing(events):
        async for each in events:
            if isinstance(each, TextDelta):
                choice = _choice(each.choice, each.text, None, _logprobs(each.logprobs, calls[0]))
                yield event(head.document([choice], **no_usage))
            elif isinstance(each, Finished):
                ends[each.choice] = each
                yield event(head.document([_choice(each.choice, "", each.reason)], **no_usage, **openai.origin(each)))
    if includes_usage:
        yield event(head.document([], usage=openai.usage(_total(ends, calls))))
    yield openai.DONE

"""Dialects whose answers are made of typed events: whole, and as a stream."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from .errors import ApiError, api_error
from .streaming import event, json_response

if TYPE_CHECKING:
    from starlette.responses import Response

    from .answering import Answering
    from .calls import ChatCall, Event


class AnswerEvents(Protocol):
    """Makes a dialect's events of one answer from those of :mod:`.calls`. Each has its type as ``type``."""

    def begin(self) -> Iterator[dict[str, Any]]:
        """Yield the first events."""
        ...

    def push(self, event: Event, /) -> Iterator[dict[str, Any]]:
        """Yield the events that an event of the answer makes."""
        ...

    def fail(self, error: ApiError) -> Iterator[dict[str, Any]]:
        """Yield the last events of an answer that an error ends."""
        ...

    def document(self) -> dict[str, Any]:
        """Return the answer as it is now."""
        ...


async def whole(answering: Answering, call: ChatCall, made: AnswerEvents) -> Response:
    """Return the whole answer as one document."""
    async with contextlib.aclosing(answering.events(call)) as events:
        async for each in events:
            for _ in made.push(each):
                pass
    return json_response(made.document())


async def stream(answering: Answering, call: ChatCall, made: AnswerEvents) -> AsyncGenerator[bytes, None]:
    """Yield the answer as server-sent events."""
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

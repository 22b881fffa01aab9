"""Answer a client for as long as it is there: its going away ends the work within one token."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import Response

from .errors import ApiError, StoppingError, api_error, encode

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from .lifetime import Lifetime

T = TypeVar("T")
_GONE_STATUS = 499
UNREAD_LIMIT_S = 60.0
"""Seconds after which a client that reads nothing more of a stream, whose buffers are full, is taken for gone."""
_LAST_MOMENT_S = 0.5
"""How long an answer that is cut off has to end by itself. One whose device is being started again takes longer."""


class ClientGoneError(Exception):
    """The client has closed the connection."""


def event(content: Any, name: str | None = None) -> bytes:
    """Return a server-sent event with a JSON document, of the type ``name`` if the dialect has types."""
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + encode(content) + b"\n\n"


def json_response(content: Any) -> Response:
    """Return a response with a JSON document."""
    return Response(encode(content), media_type="application/json")


async def complete(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Return the response that ``work`` makes, for a client that waits for it.

    Raises:
        StoppingError: the server is being stopped.
        Exception: what ``work`` raises.
    """
    lifetime: Lifetime = request.app.state.lifetime
    try:
        async with lifetime.answering():
            return await _while_there(work, request.receive, lifetime)
    except ClientGoneError:
        return Response(status_code=_GONE_STATUS)  # nobody reads it
    finally:
        if inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
            work.close()  # there is no task that would do so


class EventStream(Response):
    """A response of server-sent events.

    It begins with the first event, so that what goes wrong before has a status of its own. What goes wrong after that
    is its last event.

    Args:
        request: the request that it answers.
        events: makes the events, as bytes. It is closed at the end, early or not.
        error_event: makes the event that tells of an error.
    """

    media_type = "text/event-stream"

    def __init__(
        self, request: Request, events: AsyncGenerator[bytes, None], error_event: Callable[[ApiError], bytes]
    ) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._lifetime: Lifetime = request.app.state.lifetime
        self._events = events
        self._error_event = error_event
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as ASGI calls it
        """Send the events for as long as the client is there."""
        async with self._lifetime.answering():
            try:
                await _while_there(self._send_all(send), receive, self._lifetime)
            except ClientGoneError:
                return
            except Exception as error:
                if not self._begun:
                    raise
                await self._send(send, self._error_event(api_error(error)))
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        async with contextlib.aclosing(self._events) as events:
            async for each in events:
                with _limited(UNREAD_LIMIT_S):
                    await self._send(send, each)

    async def _send(self, send: Send, body: bytes) -> None:
        if not self._begun:
            self._begun = True
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Cancel the running task if it takes longer. ``asyncio.wait_for`` would cost a task for each event."""
    task = asyncio.current_task()
    assert task is not None
    limit = asyncio.get_running_loop().call_later(seconds, task.cancel)
    try:
        yield
    finally:
        limit.cancel()


async def _while_there(work: Coroutine[Any, Any, T], receive: Receive, lifetime: Lifetime) -> T:
    """Return the result of ``work``, which is cancelled if nobody waits for it any more.

    Raises:
        ClientGoneError: the client has gone.
        StoppingError: the server stops, and the grace is over.
    """
    task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        ends: set[asyncio.Future[Any]] = {task, leaving, lifetime.cut}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not task.done():
            task.cancel()
        await asyncio.wait({task, leaving}, timeout=_LAST_MOMENT_S if lifetime.cut.done() else None)
    if task.done() and not task.cancelled():
        return task.result()
    raise StoppingError if lifetime.cut.done() else ClientGoneError


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

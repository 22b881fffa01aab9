"""Read answers from asyncio's tasks, without a thread for each."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor

from .pending import BLOCKING, Awaited
from .replies import Stream

_THREADS = 2
_NEVER_S = 100 * 365 * 86400.0


def make_executor() -> Executor:
    """Return threads for the steps that block, such as loading an engine.

    Not asyncio's own threads, because all of them may be waiting for answers.
    """
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="phi3-stream")


async def read(make: Callable[[], Stream], executor: Executor) -> AsyncGenerator[str, None]:
    """Yield the chunks of an answer. An iterator that is closed early closes the stream, and so does a closed loop.

    Args:
        make: returns the stream; called in a thread.
        executor: threads for the steps that block.
    """
    loop = asyncio.get_running_loop()
    stream = await loop.run_in_executor(executor, make)
    unwatch = _close_with(loop, stream)
    blocking = None
    try:
        while (item := stream.advance()) is not None:
            while item is BLOCKING:
                blocking = loop.run_in_executor(executor, stream.advance)
                # A task that is cancelled leaves the step to its thread.
                item = await asyncio.shield(blocking)
            if item is None:
                return
            if isinstance(item, str):
                yield item
            else:
                await _happening(item)
    finally:
        unwatch()
        if blocking is not None and not blocking.done():
            await asyncio.wait([blocking])
        if not stream.ended:
            try:
                closing = loop.run_in_executor(executor, stream.close)
            except RuntimeError:  # the loop has been closed, or the interpreter ends
                stream.close()
            else:
                await closing


def _close_with(loop: asyncio.AbstractEventLoop, stream: Stream) -> Callable[[], None]:
    """Close a stream as soon as the loop is closed, which tells no task. Returns a function that ends this.

    A closed loop drops its timers, and nobody else has this one, whose time never comes.
    """
    timer = loop.call_later(_NEVER_S, _nothing)
    closing = weakref.finalize(timer, _close, weakref.ref(stream))
    closing.atexit = False

    def unwatch() -> None:
        if (watched := closing.detach()) is not None:
            watched[0].cancel()

    return unwatch


def _nothing() -> None:
    pass


def _close(reference: weakref.ref[Stream]) -> None:
    if (stream := reference()) is not None:
        stream.close()


async def _happening(event: Awaited) -> None:
    """Wait until an event of a stream happens."""
    loop = asyncio.get_running_loop()
    happened = loop.create_future()

    def wake() -> None:
        if not happened.done():
            happened.set_result(None)

    def notice() -> None:  # called in another thread
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(wake)

    event.notify(notice)
    await happened

"""Read answers from asyncio's tasks, without a thread for each."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor

from .pending import BLOCKING, Awaited
from .replies import Stream

_THREADS = 2


def make_executor() -> Executor:
    """Return threads for the steps that block, such as loading an engine.

    Not asyncio's own threads, because all of them may be waiting for answers.
    """
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="phi3-stream")


async def read(make: Callable[[], Stream], executor: Executor) -> AsyncGenerator[str, None]:
    """Yield the chunks of an answer. An iterator that is closed early closes the stream.

    Args:
        make: returns the stream; called in a thread.
        executor: threads for the steps that block.
    """
    loop = asyncio.get_running_loop()
    stream = await loop.run_in_executor(executor, make)
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
                await _happening(item, stream)
    finally:
        if blocking is not None and not blocking.done():
            await asyncio.wait([blocking])
        if not stream.ended:
            try:
                closing = loop.run_in_executor(executor, stream.close)
            except RuntimeError:  # the loop has been closed, or the interpreter ends
                stream.close()
            else:
                await closing


async def _happening(event: Awaited, stream: Stream) -> None:
    """Wait until an event of a stream happens. If the event loop has been closed by then, nobody reads the stream."""
    loop = asyncio.get_running_loop()
    happened = loop.create_future()
    reference = weakref.ref(stream)  # a turn keeps its callbacks, and must not keep the stream

    def wake() -> None:
        if not happened.done():
            happened.set_result(None)

    def notice() -> None:  # called in another thread
        try:
            loop.call_soon_threadsafe(wake)
        except RuntimeError:  # the loop has been closed
            if (unread := reference()) is not None:
                unread.close()

    event.notify(notice)
    await happened

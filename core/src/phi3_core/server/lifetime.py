"""How a server ends: it refuses what is new, finishes what runs, and cuts off what takes too long."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from .errors import StoppingError

_LAST_WORDS_S = 2.0


class Lifetime:
    """Whether a server answers, finishes, or stops. For the thread of its event loop."""

    def __init__(self) -> None:
        self.started = time.time()
        self.is_draining = False
        """Whether new requests are refused."""
        self.running = 0
        """Number of requests that are being answered."""
        self._at_drain: list[Callable[[], object]] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._cut: asyncio.Future[None] | None = None

    @property
    def cut(self) -> asyncio.Future[None]:
        """Done when running answers are cut off."""
        if self._cut is None:
            self._cut = asyncio.get_running_loop().create_future()
        return self._cut

    @contextlib.asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Count a request that is being answered.

        Raises:
            StoppingError: the server takes no more.
        """
        if self.is_draining:
            raise StoppingError
        self.running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.running -= 1
            if not self.running:
                self._idle.set()

    def at_drain(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the server begins to end."""
        self._at_drain.append(callback)

    async def drain(self, grace_s: float) -> None:
        """Refuse new requests, give running ones ``grace_s`` seconds, and cut off the rest."""
        self.is_draining = True
        for callback in self._at_drain:
            callback()
        waiting = asyncio.ensure_future(self._idle.wait())
        ends: set[asyncio.Future[Any]] = {waiting, self.cut}
        await asyncio.wait(ends, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        self.cut_off()
        await asyncio.wait({waiting}, timeout=_LAST_WORDS_S)
        waiting.cancel()

    def cut_off(self) -> None:
        """End the running answers."""
        if not self.cut.done():
            self.cut.set_result(None)

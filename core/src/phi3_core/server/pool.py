"""The models of a server: loaded when they are asked for, unloaded when nobody asks or there is no room."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import psutil
from attrs import define, field

from phi3_core import tasks
from phi3_core.cgroups import memory_available
from phi3_core.errors import BackendError, Phi3Error, TooLargeError
from phi3_core.options import closest

from .errors import ApiError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from phi3_core.model import Model

    from .offers import Offer, Offers

T = TypeVar("T")
logger = logging.getLogger("phi3_core")

Load = Callable[["Offer"], "Model"]
"""Loads a model. Called in a thread."""
_SHARE = 1.2
"""Memory of an engine as a multiple of its weights' size."""
_BASE_BYTES = 300 << 20
"""Memory of a worker process besides."""
_LONGEST_SHOWN = 80
"""Characters of an unknown model's name that are repeated."""


@define(eq=False)
class LoadedModel:
    """A model that is loaded."""

    name: str
    model: Model
    executor: Executor = field(factory=tasks.make_executor)
    """Threads for the steps of its answers that block."""
    running: int = 0
    """Number of requests that use it."""
    used: float = field(factory=time.monotonic)
    """The time of the last use, as all these from ``time.monotonic()``."""
    begun: float = 0.0
    """The time at which the latest answer was asked for."""
    last_token: float = 0.0
    """The time of the latest text."""

    def note_beginning(self) -> None:
        """Note that an answer has been asked for."""
        self.begun = time.monotonic()

    def note_token(self) -> None:
        """Note that the engine has answered."""
        self.last_token = time.monotonic()

    def close(self) -> None:
        """Unload the model."""
        self.model.close()
        self.executor.shutdown(wait=False)


class ModelPool:
    """The models that a server has loaded. For the thread of its event loop.

    Args:
        offers: the models that there are.
        load: loads one of them.
        available: returns the bytes of memory that can be used.
    """

    def __init__(self, offers: Offers, load: Load, *, available: Callable[[], int] | None = None) -> None:
        self.offers = offers
        self._load = load
        self._available = available or available_memory
        self._loaded: dict[str, LoadedModel] = {}
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._awaited: Counter[str] = Counter()
        """The number of requests that wait until a model is loaded, and have not begun to use it."""
        self._changing = asyncio.Lock()

    @property
    def loaded(self) -> tuple[LoadedModel, ...]:
        """The models that are loaded."""
        return tuple(self._loaded.values())

    def adopt(self, name: str, model: Model) -> None:
        """Add a model that has been loaded already."""
        self._loaded[name] = LoadedModel(name, model)

    @contextlib.asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[LoadedModel]:
        """Provide a model, which stays loaded meanwhile.

        Raises:
            ApiError: there is no such model, or no room for it.
            Phi3Error: it cannot be loaded.
        """
        found = self._loaded.get(name)
        if found is None:
            offer = self.offers.find(name)
            if offer is None:
                raise not_found(name, self.offers)
            self._awaited[offer.name] += 1
            try:
                while (found := self._loaded.get(offer.name)) is None:
                    await self._load_once(offer)
            finally:
                self._awaited[offer.name] -= 1
        found.running += 1
        try:
            yield found
        finally:
            found.running -= 1
            found.used = time.monotonic()

    async def _load_once(self, offer: Offer) -> None:
        """Load a model, once for all who ask for it meanwhile. It is loaded even if they have gone."""
        if offer.name not in self._loading:
            task = self._loading[offer.name] = asyncio.ensure_future(self._load_now(offer))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # perhaps nobody waits for it
        await asyncio.shield(self._loading[offer.name])

    async def _load_now(self, offer: Offer) -> None:
        try:
            async with self._changing:
                await self._make_room(offer)
                self.adopt(offer.name, await self._load_with_retries(offer))
        finally:
            del self._loading[offer.name]

    async def _make_room(self, offer: Offer) -> None:
        """Unload models until there is memory for another one, the least recently used first.

        Raises:
            ApiError: those that are in use leave no room.
        """
        needed = 0 if offer.size_bytes is None else int(_SHARE * offer.size_bytes) + _BASE_BYTES
        while self._loaded and self._available() < needed:
            if not await self._unload_oldest():
                words = f"{offer.name} has no room beside the models that are in use"
                raise ApiError(503, words, param="model", code="no_memory", headers={"Retry-After": "10"})

    async def _load_with_retries(self, offer: Offer) -> Model:
        """Load a model. As long as that fails and another one is idle, make room on the device."""
        while True:
            try:
                return await _in_thread(partial(self._load, offer))
            except (BackendError, TooLargeError):
                if not await self._unload_oldest():
                    raise

    def _is_idle(self, model: LoadedModel) -> bool:
        """Return whether nobody uses a model, or is about to: who has waited for it runs later than its loading."""
        return not model.running and not self._awaited[model.name]

    async def _unload_oldest(self) -> bool:
        """Unload the idle model that was used least recently; return whether there was one."""
        idle = [each for each in self._loaded.values() if self._is_idle(each)]
        if not idle:
            return False
        await self._unload(min(idle, key=lambda each: each.used))
        return True

    async def _unload(self, model: LoadedModel) -> None:
        del self._loaded[model.name]  # before it is closed, so that nobody begins to use it
        logger.info("unloading %s", model.name)
        with contextlib.suppress(Phi3Error):
            await _in_thread(model.close)

    async def unload_idle(self, keep_alive_s: float | None) -> None:
        """Unload models that nobody has asked for ``keep_alive_s`` seconds, until this is cancelled."""
        while keep_alive_s is not None:
            await asyncio.sleep(min(1.0, max(0.05, keep_alive_s / 4)))
            async with self._changing:
                for each in self.loaded:
                    if self._is_idle(each) and time.monotonic() - each.used >= keep_alive_s:
                        await self._unload(each)

    async def close(self) -> None:
        """Unload all models."""
        for task in self._loading.values():
            task.cancel()
        for each in self.loaded:
            await self._unload(each)


async def _in_thread(call: Callable[[], T]) -> T:
    """Return the result of a call that blocks. Its thread does not hold up the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(set_outcome: Callable[[], object]) -> None:
        if not future.done():
            set_outcome()

    def run() -> None:
        outcome: Callable[[], object]
        try:
            outcome = partial(future.set_result, call())
        except BaseException as error:
            outcome = partial(future.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(finish, outcome)

    threading.Thread(target=run, name="phi3-load", daemon=True).start()
    return await future


def not_found(name: str, offers: Offers) -> ApiError:
    """Return the error for a model that is not offered, with the one that may have been meant."""
    shown = name if len(name) <= _LONGEST_SHOWN else name[: _LONGEST_SHOWN - 1] + "…"
    meant = closest(shown, offers.names())
    hint = f"did you mean {meant}?" if meant else "/v1/models lists those that there are"
    return ApiError(404, f"there is no model {shown!r} here; {hint}", param="model", code="model_not_found")


def available_memory() -> int:
    """Return the bytes of main memory that can be used, also by the limits of a container."""
    available: int = psutil.virtual_memory().available
    left = memory_available()
    return available if left is None else min(available, left)

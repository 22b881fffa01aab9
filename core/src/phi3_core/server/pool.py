"""The models of a server: loaded when they are asked for, unloaded when nobody asks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from attrs import define, field

from phi3_core import tasks
from phi3_core.errors import Phi3Error

from .errors import ApiError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from phi3_core.model import Model

Load = Callable[[str], "Model"]
"""Loads the model of a name that the pool knows. Called in a thread."""


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
    """The time of the last use."""

    def close(self) -> None:
        """Unload the model."""
        self.model.close()
        self.executor.shutdown(wait=False)


class ModelPool:
    """The models that a server offers. For the thread of its event loop.

    Args:
        names: the names that were given at the start. No other is ever looked up.
        load: loads a model of one of these names.
    """

    def __init__(self, names: tuple[str, ...], load: Load) -> None:
        self._names = names
        self._load = load
        self._loaded: dict[str, LoadedModel] = {}
        self._loading: dict[str, asyncio.Task[LoadedModel]] = {}
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="phi3-load")

    @property
    def names(self) -> tuple[str, ...]:
        """The names that requests may use."""
        return self._names

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
            ApiError: there is no such model.
            Phi3Error: it cannot be loaded.
        """
        if name not in self.names:
            raise ApiError(404, f"there is no model {name!r} here", param="model", code="model_not_found")
        found = self._loaded.get(name) or await self._load_once(name)
        found.running += 1
        try:
            yield found
        finally:
            found.running -= 1
            found.used = time.monotonic()

    async def _load_once(self, name: str) -> LoadedModel:
        """Load a model, once for all who ask for it meanwhile. It is loaded even if they have gone."""
        if name not in self._loading:
            self._loading[name] = asyncio.ensure_future(self._load_now(name))
        return await asyncio.shield(self._loading[name])

    async def _load_now(self, name: str) -> LoadedModel:
        loop = asyncio.get_running_loop()
        try:
            model = await loop.run_in_executor(self._threads, self._load, name)
            self.adopt(name, model)
            return self._loaded[name]
        finally:
            del self._loading[name]

    async def close(self) -> None:
        """Unload all models."""
        loop = asyncio.get_running_loop()
        for name in tuple(self._loaded):
            with contextlib.suppress(Phi3Error):
                await loop.run_in_executor(None, self._loaded.pop(name).close)
        self._threads.shutdown(wait=False)

"""The application: its routes and what all of them have in common."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.routing import Route

from phi3_core import __version__

from . import chat, completions, errors, health, messages, metrics, models_list, page, responses
from .answering import Answering
from .guard import Guard

if TYPE_CHECKING:
    from .pool import ModelPool
    from .settings import ServerSettings

DIALECTS = (chat, completions, responses, messages, models_list, health, metrics)
"""The modules that have routes. Each has ``router(answering)``."""


def make_app(settings: ServerSettings, pool: ModelPool) -> FastAPI:
    """Return the application.

    Args:
        settings: what it allows.
        pool: its models, which it closes at its end.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        unloading = asyncio.ensure_future(pool.unload_idle(settings.keep_alive_s))
        try:
            yield
        finally:
            unloading.cancel()
            await asyncio.wait({unloading})
            await pool.close()

    app = FastAPI(
        title="phi3 serve",
        version=__version__,
        docs_url=None,  # the pages that describe the interface would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        # It would give requests with their bodies to OpenTelemetry, and export them if the environment says so.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    answering = Answering(pool, settings)
    app.state.lifetime = answering.lifetime
    addresses: set[str] = set()
    for dialect in DIALECTS:
        routes = dialect.router(answering)
        addresses.update(route.path for route in routes.routes if isinstance(route, Route))
        app.include_router(routes)
    app.include_router(page.router())
    errors.install(app, addresses)
    app.add_middleware(Guard, settings=settings, metrics=answering.metrics)
    return app

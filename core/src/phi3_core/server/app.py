"""The application: its routes and what all of them have in common."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastapi import FastAPI

from phi3_core import __version__

from . import chat, completions, errors, models_list, page
from .answering import Answering
from .lifetime import Lifetime

if TYPE_CHECKING:
    from .pool import ModelPool
    from .settings import ServerSettings

DIALECTS = (chat, completions, models_list)
"""The modules that have routes. Each has ``router(answering)``."""


def make_app(settings: ServerSettings, pool: ModelPool) -> FastAPI:
    """Return the application.

    Args:
        settings: what it allows.
        pool: its models, which it closes at its end.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await pool.close()

    # The pages that describe the interface would load scripts from elsewhere.
    app = FastAPI(
        title="phi3 serve",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.lifetime = Lifetime()
    answering = Answering(pool, settings)
    for dialect in DIALECTS:
        app.include_router(dialect.router(answering))
    app.include_router(page.router())
    errors.install(app)
    return app

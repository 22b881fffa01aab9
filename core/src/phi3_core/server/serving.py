"""Listen, answer until a signal, and end in order."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from phi3_core.disk import reason
from phi3_core.errors import UsageError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from .lifetime import Lifetime
    from .settings import ServerSettings

logger = logging.getLogger("phi3_core")


def listen(settings: ServerSettings) -> socket.socket:
    """Return a socket at the server's address, which does not listen yet.

    Raises:
        UsageError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            # There, SO_REUSEADDR would let another program take the address as well.
            found.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((settings.host, settings.port))
    except OSError as error:
        found.close()
        where = f"{settings.host}, port {settings.port}"
        raise UsageError(
            f"the server cannot listen on {where}: {reason(error)}", hint="--port 0 finds a free one"
        ) from error
    return found


def address(settings: ServerSettings, listening: socket.socket) -> str:
    """Return the URL of the server."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{listening.getsockname()[1]}"


def run(app: FastAPI, settings: ServerSettings, listening: socket.socket) -> bool:
    """Answer requests until a signal ends the server, and return whether that was Ctrl-C."""
    config = uvicorn.Config(
        app,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
        lifespan="on",
    )
    server = _Server(config, app.state.lifetime, settings.grace_s)
    server.run(sockets=[listening])
    return server.interrupted


class _Server(uvicorn.Server):
    """Ends when what runs has been answered."""

    def __init__(self, config: uvicorn.Config, lifetime: Lifetime, grace_s: float) -> None:
        super().__init__(config)
        self._lifetime = lifetime
        self._grace_s = grace_s
        self._ending: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.interrupted = False

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer requests until a signal ends the server."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as uvicorn calls it
        """Begin to end, at the first signal; end at once, at the second."""
        self.interrupted = self.interrupted or sig == signal.SIGINT
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if self._ending is not None:
            self._lifetime.cut_off()
            return
        if self._lifetime.running:
            logger.warning("stopping: %d requests have %g s to end", self._lifetime.running, self._grace_s)
        self._ending = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        await self._lifetime.drain(self._grace_s)
        self.should_exit = True

"""Listen, answer until a signal, and end in order."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import sys
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from phi3_core.disk import reason
from phi3_core.errors import UsageError

from .protocol import Protocol

if TYPE_CHECKING:
    from fastapi import FastAPI

    from .lifetime import Lifetime
    from .settings import ServerSettings

logger = logging.getLogger("phi3_core")

_BACKLOG = 128
_KEEP_ALIVE_S = 75
"""Seconds for which an idle connection stays open: longer than clients use one again, who would lose a request."""


def listen(settings: ServerSettings) -> socket.socket:
    """Return a socket that listens at the server's address. Clients that connect wait until the server runs.

    Raises:
        UsageError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is stated; it would delay tokens by 40 ms.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform == "win32":
            # There, SO_REUSEADDR would let another program take the address as well.
            found.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((settings.host, settings.port))
        found.listen(_BACKLOG)  # before a model is loaded: Linux tells only now that another program listens there
    except OSError as error:
        found.close()
        where = f"{settings.host}, port {settings.port}"
        is_elsewhere = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        hint = "--host takes an address of this machine" if is_elsewhere else "--port 0 finds a free one"
        raise UsageError(f"the server cannot listen on {where}: {reason(error)}", hint=hint) from error
    return found


def address(settings: ServerSettings, listening: socket.socket) -> str:
    """Return the URL of the server."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{listening.getsockname()[1]}"


class Server(uvicorn.Server):
    """Answers requests until a signal, and ends when what runs has been answered.

    Args:
        app: the application.
        settings: has the time that running answers get.
    """

    def __init__(self, app: FastAPI, settings: ServerSettings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="error",  # it has a warning for whatever is no HTTP, and lines with the queries of requests
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=5,
            )
        )
        self._lifetime: Lifetime = app.state.lifetime
        self._grace_s = settings.grace_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Task[None] | None = None
        self.interrupted = False
        """Whether Ctrl-C has ended it."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer requests until :meth:`end` is called or a signal arrives."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as uvicorn calls it
        """End after a signal. The base class would also raise it again, which kills the process."""
        self.interrupted = self.interrupted or sig == signal.SIGINT
        self.end()

    def end(self) -> None:
        """Begin to end; called again, end at once. May be called in any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if self._ending is not None:
            self.force_exit = self._lifetime.cut.done()  # at the third signal nothing is waited for
            self._lifetime.cut_off()
            return
        if self._lifetime.running:
            words = "the server ends when its %d requests have, in %g s at most; Ctrl-C again cuts them off"
            logger.warning(words, self._lifetime.running, self._grace_s)
        self._ending = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        await self._lifetime.drain(self._grace_s)
        self.should_exit = True

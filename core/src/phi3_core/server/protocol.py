"""HTTP/1.1 on one connection, which does not stay open for a client that does not finish its request's head."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_LIMIT_S = 30.0
"""Seconds that a client has for the head of a request, from its first byte or from the beginning of the connection."""


class Protocol(H11Protocol):
    """uvicorn's protocol, which itself limits only the time between two requests.

    Always this one: what else uvicorn would take if it is installed accepts requests with two ``Host``.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn states it
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take more of a request."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Limit the time for a head that is not complete, and no other time."""
        if self.conn.their_state is not h11.IDLE:
            self._unwatch()
        elif self._limit is None:
            self._limit = self.loop.call_later(HEAD_LIMIT_S, self._close)

    def _unwatch(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _close(self) -> None:
        self._limit = None
        self.transport.close()

"""The worker's side: import one plugin, and serve the host's calls.

The main thread serves one call after the other, apart from generations of an engine that takes several at once. Another
thread reads the messages, so that a cancel is noticed during a call.
"""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing.connection as connections
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

from .lifetime import end_with_host
from .protocol import Channel
from .serving import Server


def main(handle: int, host: int | None = None) -> None:
    """Serve the host at the other end of the pipe ``handle`` until it closes the pipe.

    Args:
        handle: the pipe.
        host: on Windows, a handle of the host's process.
    """
    # Ctrl-C is handled by the host.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    _show_no_dialogs()
    end_with_host(host)
    channel = Channel(_connection(handle))
    _send_warnings(channel)
    server = Server(channel)
    calls: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(channel, server, calls), name="phi3-messages", daemon=True).start()
    while (message := calls.get()) is not None:
        server.serve(message)


def _read(channel: Channel, server: Server, calls: queue.SimpleQueue[Mapping[str, Any] | None]) -> None:
    """Read messages until the host closes the pipe: put calls into the queue, and note cancels."""
    while True:
        try:
            message = channel.receive()
        except (EOFError, OSError):
            calls.put(None)
            return
        if "call" in message:
            if message["call"] == "generate":
                server.generations.accept(message["number"])
            calls.put(message)
        else:
            server.generations.cancel(message["cancel"])


def _show_no_dialogs() -> None:
    """Let a crash end the process at once; Windows would show a dialog and wait for somebody to close it."""
    if sys.platform == "win32":
        import msvcrt

        crashes = msvcrt.SEM_FAILCRITICALERRORS | msvcrt.SEM_NOGPFAULTERRORBOX
        msvcrt.SetErrorMode(crashes | msvcrt.SEM_NOOPENFILEERRORBOX)


def _connection(handle: int) -> Any:
    if sys.platform == "win32":
        return connections.PipeConnection(handle)
    return connections.Connection(handle)


def _send_warnings(channel: Channel) -> None:
    """Send the plugin's log messages from warnings on to the host, which logs them."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            channel.send({"notice": record.getMessage()})

    logger = logging.getLogger("phi3_core")
    logger.addHandler(Handler(logging.WARNING))
    logger.propagate = False

"""What the host and a worker say to each other: JSON objects over a pipe.

Nothing is pickled: a worker runs other people's native code, and its host must be able to distrust what it says.

From the host: ``{"call": verb, …arguments}`` and, during ``generate``, ``{"cancel": true}``.
From the worker, any number of ``{"progress": [stage, done, total]}``, ``{"notice": text}`` and ``{"id": token}``,
possibly an array (``{"array": [rows, columns]}``, then its rows as float32 bytes), then one ``{"result": …}`` or
``{"error": {"kind", "message", "hint", "traceback"}}``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

LARGEST_MESSAGE = 256 * 2**20
_ROWS = 64
"""Rows of an array in one message: of a vocabulary of 200,000, some 50 MB."""


class Connection(Protocol):
    """The part of ``multiprocessing.connection.Connection`` that both of its platform's classes share."""

    def send_bytes(self, buf: bytes) -> None: ...
    def recv_bytes(self, maxlength: int | None = None) -> bytes: ...
    def poll(self, timeout: float | None = 0.0) -> bool: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class Channel:
    """Messages over a connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._sending = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message, from any thread; ``OSError`` if the other side is gone."""
        from phi3_core.values import to_plain  # start-up: a host starts its worker before it imports anything large

        data = json.dumps(to_plain(message), separators=(",", ":")).encode()
        with self._sending:
            self.connection.send_bytes(data)

    def receive(self) -> dict[str, Any]:
        """Wait for one message; ``EOFError`` or ``OSError`` if the other side is gone."""
        message = json.loads(self.connection.recv_bytes(LARGEST_MESSAGE))
        if not isinstance(message, dict):
            raise OSError("the other side sent something that is not a message")
        return message

    def send_array(self, array: np.ndarray) -> None:
        """Send a matrix as float32, some rows at a time."""
        self.send({"array": list(array.shape)})
        with self._sending:
            for start in range(0, len(array), _ROWS):
                self.connection.send_bytes(array[start : start + _ROWS].astype("<f4").tobytes())

    def receive_array(self, shape: Sequence[int]) -> np.ndarray:
        """Receive what :meth:`send_array` sends behind its announcement."""
        import numpy as np  # start-up: only logits are arrays

        rows, columns = shape
        array = np.empty((rows, columns), dtype=np.float32)
        for start in range(0, rows, _ROWS):
            piece = np.frombuffer(self.connection.recv_bytes(LARGEST_MESSAGE), dtype="<f4")
            array[start : start + _ROWS] = piece.reshape(-1, columns)
        return array

    def waiting(self, seconds: float = 0.0) -> bool:
        """Whether a message, or the other side's end, can be read within ``seconds``."""
        return self.connection.poll(seconds)

"""The protocol between the host and a worker: JSON objects over a pipe.

Nothing is pickled, because a worker runs third-party native code and its host must not trust its messages.

The host sends ``{"call": verb, …arguments}`` and, during ``generate``, ``{"cancel": true}``. The worker sends any
number of ``{"progress": [stage, done, total]}``, ``{"notice": text}`` and ``{"id": token}``, optionally an array
(``{"array": [rows, columns]}``, then its rows as float32 bytes), and at the end ``{"result": …}`` or
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
"""Size limit of a message in bytes."""
_ROWS = 64
"""Rows of an array per message: about 50 MB for a vocabulary of 200,000."""


class Connection(Protocol):
    """The methods that ``Connection`` and ``PipeConnection`` of ``multiprocessing.connection`` share."""

    def send_bytes(self, buf: bytes) -> None: ...
    def recv_bytes(self, maxlength: int | None = None) -> bytes: ...
    def poll(self, timeout: float | None = 0.0) -> bool: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class Channel:
    """Sends and receives messages over a connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._sending = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; thread-safe.

        Raises:
            OSError: the other side has closed the connection.
        """
        from phi3_core.values import to_plain  # start-up: the host starts its worker before it imports large modules

        data = json.dumps(to_plain(message), separators=(",", ":")).encode()
        with self._sending:
            self.connection.send_bytes(data)

    def receive(self) -> dict[str, Any]:
        """Wait for a message and return it.

        Raises:
            EOFError: the other side has closed the connection.
            OSError: the connection failed, or the message is too large or not a JSON object.
        """
        message = json.loads(self.connection.recv_bytes(LARGEST_MESSAGE))
        if not isinstance(message, dict):
            raise OSError("the other side sent something that is not a message")
        return message

    def send_array(self, array: np.ndarray) -> None:
        """Send a two-dimensional array as float32, in blocks of rows."""
        self.send({"array": list(array.shape)})
        with self._sending:
            for start in range(0, len(array), _ROWS):
                self.connection.send_bytes(array[start : start + _ROWS].astype("<f4").tobytes())

    def receive_array(self, shape: Sequence[int]) -> np.ndarray:
        """Receive the rows that :meth:`send_array` sends after the message with the shape."""
        import numpy as np  # start-up: needed only for logits

        rows, columns = shape
        array = np.empty((rows, columns), dtype=np.float32)
        for start in range(0, rows, _ROWS):
            piece = np.frombuffer(self.connection.recv_bytes(LARGEST_MESSAGE), dtype="<f4")
            array[start : start + _ROWS] = piece.reshape(-1, columns)
        return array

    def waiting(self, seconds: float = 0.0) -> bool:
        """Wait up to ``seconds``, and return whether there is a message to read or the connection has been closed."""
        return self.connection.poll(seconds)

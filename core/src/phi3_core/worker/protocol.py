"""The protocol between the host and a worker: JSON objects over a pipe.

Nothing is pickled, because a worker runs third-party native code and its host must not trust its messages.

The host sends ``{"call": verb, "number": n, …arguments}``, and ``{"cancel": n}`` to end a ``generate`` early. The
worker answers each call by its number: with any number of ``{"of": n, "progress": [stage, done, total]}`` and
``{"of": n, "id": token}``, which has ``"logprob"`` and ``"top": [[token, logprob], …]`` if they were asked for,
optionally an array (``{"of": n, "array": [rows, columns]}``, then its rows as float32 bytes), and at the end with
``{"of": n, "result": …}`` or ``{"of": n, "error": {"kind", "message", "hint", "traceback"}}``. ``{"notice": text}``
belongs to no call.
"""

from __future__ import annotations

import collections
import json
import select
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from phi3_core.values import ScoredToken

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
    """Sends and receives messages over a connection. Any thread may send; only one receives."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._outbox: collections.deque[bytes] = collections.deque()
        self._sending = threading.Lock()
        self._poll = _poller(connection)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message.

        Raises:
            OSError: the other side has closed the connection. If another thread is sending, it gets the error.
        """
        from phi3_core.values import to_plain  # start-up: the host starts its worker before it imports large modules

        self._send(json.dumps(to_plain(message), separators=(",", ":")).encode())

    def send_id(self, number: int, token: int) -> None:
        """Send a token id of the call ``number``. Raises as :meth:`send`."""
        self._send(b'{"of":%d,"id":%d}' % (number, token))

    def send_scored(self, number: int, token: ScoredToken) -> None:
        """Send a token id of the call ``number`` with its logarithmic probabilities. Raises as :meth:`send`."""
        message = {"of": number, "id": int(token), "logprob": token.logprob, "top": token.top}
        self._send(json.dumps(message, separators=(",", ":")).encode())

    def _send(self, data: bytes) -> None:
        # A thread that is sending sends what others add, so that nobody waits: an answer may be closed by the garbage
        # collector, which runs in any thread, even in one that is sending.
        self._outbox.append(data)
        while self._outbox and self._sending.acquire(blocking=False):
            try:
                while self._outbox:
                    self.connection.send_bytes(self._outbox.popleft())
            finally:
                self._sending.release()

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

    def send_array(self, number: int, array: np.ndarray) -> None:
        """Send a two-dimensional array of the call ``number`` as float32, in blocks of rows."""
        with self._sending:
            header = {"of": number, "array": list(array.shape)}
            self.connection.send_bytes(json.dumps(header).encode())
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
        """Wait up to ``seconds``, and return whether there is a message to read or the connection has been closed.

        Raises:
            OSError: this side has closed the connection.
        """
        return self._poll(seconds)


def _poller(connection: Connection) -> Callable[[float], bool]:
    """Return the ``poll`` of a connection; where the system has one, a faster one: it is called for each token."""
    if not hasattr(select, "poll"):
        return connection.poll
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)

    def wait(seconds: float) -> bool:
        connection.fileno()  # raises if it is closed, when its number may belong to another file
        return bool(poll.poll(seconds * 1000))

    return wait

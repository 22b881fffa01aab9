"""What a worker prints: kept for error messages, shown if asked for, and read so that its pipe does not fill."""

from __future__ import annotations

import collections
import contextlib
import logging
import subprocess
import threading
from typing import IO

from phi3_core.config import shows_output

logger = logging.getLogger("phi3_core")

_LAST_LINES = 20


class Output:
    """The last lines of a process's standard output, read by a thread until it ends."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.name = "worker"
        """Who prints: the name of the backend, once it is known."""
        self._shows = shows_output()
        self._lines: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
        arguments = (process.stdout,)
        self._thread = threading.Thread(target=self._read, args=arguments, name="phi3-worker-output", daemon=True)
        self._thread.start()

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines, oldest first."""
        return tuple(self._lines)

    def join(self) -> None:
        """Wait up to a second for the end of the output, which a child of the process may keep open."""
        self._thread.join(timeout=1.0)

    def finish(self) -> None:
        """After the end of the process: wait until all is shown, if it is."""
        if self._shows:
            self.join()

    def _read(self, stream: IO[bytes] | None) -> None:
        if stream is None:
            return
        with stream, contextlib.suppress(OSError, ValueError):
            # Bounded, because a driver may print megabytes without a line break.
            while line := stream.readline(4096):
                text = line.decode("utf-8", "replace").rstrip()
                if text:
                    self._lines.append(text)
                    if self._shows:
                        logger.warning("%s | %s", self.name, text)

"""``phi3 serve`` in a process of its own."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

_STARTED = re.compile(r"answers at (http://[^/\s]+)")
_START_S = 120


class Server:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log
        """What it prints."""

    @property
    def port(self) -> str:
        return self.url.rpartition(":")[2]


@contextlib.contextmanager
def serving(*arguments: str | Path, environment: Mapping[str, str], log: Path) -> Iterator[Server]:
    """Run a server with the arguments of ``phi3 serve`` until the block ends. Its port is free, unless it is named."""
    command = [sys.executable, "-m", "phi3_core", "serve", "--port", "0", *map(str, arguments)]
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, stderr=output, env=environment, text=True)
    try:
        yield Server(process, _wait_for_url(process, log), log)
    finally:
        process.terminate()
        process.wait(60)


def _wait_for_url(process: subprocess.Popen[str], log: Path) -> str:
    end = time.monotonic() + _START_S
    while not (found := _STARTED.search(log.read_text(encoding="utf-8"))):
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < end, log.read_text(encoding="utf-8")
        time.sleep(0.05)
    url = found.group(1)
    while not _listens(int(url.rpartition(":")[2])):
        assert time.monotonic() < end, log.read_text(encoding="utf-8")
        time.sleep(0.05)
    return url


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0

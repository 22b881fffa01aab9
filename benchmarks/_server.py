"""``phi3 serve`` in a process of its own, for the benchmarks of the server."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import psutil
from _common import phi3_command


@contextlib.contextmanager
def serving(*arguments: str, timeout_s: float = 300.0) -> Iterator[tuple[psutil.Process, int]]:
    """Run a server until the block ends.

    Args:
        *arguments: those of ``phi3 serve`` besides the port.
        timeout_s: how long it may take until the server answers.

    Yields:
        Its process, and its port on 127.0.0.1.
    """
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with subprocess.Popen(phi3_command("serve", *arguments, "--port", str(port))) as process:
        try:
            end = time.monotonic() + timeout_s
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("phi3 serve does not answer")
                time.sleep(0.1)
            yield psutil.Process(process.pid), port
        finally:
            process.terminate()
            process.wait(60)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.suppress(OSError), contextlib.closing(connection):
        connection.request("GET", "/v1/models")
        return connection.getresponse().status == 200
    return False


def stream(connection: http.client.HTTPConnection, prompt: str, new: int) -> tuple[float, int]:
    """Ask for a streamed answer, and read all of it.

    Args:
        connection: to the server; it stays open.
        prompt: the user's message.
        new: the most tokens of the answer.

    Returns:
        Seconds until the answer's first text, and the number of its tokens.
    """
    body = {"model": "sample", "stream": True, "max_tokens": new, "stream_options": {"include_usage": True}}
    body["messages"] = [{"role": "user", "content": prompt}]
    started, first, tokens = time.perf_counter(), 0.0, 0
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(response.read().decode())
    for line in iter(response.readline, b""):
        if not line.startswith(b"data: {"):
            continue
        event: dict[str, Any] = json.loads(line[6:])
        if not first and event["choices"] and event["choices"][0]["delta"].get("content"):
            first = time.perf_counter() - started
        if event.get("usage"):
            tokens = event["usage"]["completion_tokens"]
    return first, tokens

"""The server under load: clients that come, leave early and come again, while its engine is killed once.

Needs Locust (``pip install locust``). Each request must end in a whole answer, in an error that says what is wrong, or
by its client's own leaving; what does not is printed. Memory is that of the server and its engine.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import signal
import time
from typing import Any

import gevent
import psutil
from locust import HttpUser, constant, events, task  # patches sockets: before those that use them
from locust.env import Environment

# isort: split
import _server

ENDS: collections.Counter[str] = collections.Counter()
"""How many requests ended in which way."""
LOST: list[str] = []
"""What the others got."""
FIRST: list[float] = []
"""Seconds to the first bytes of the answers."""


class Client(HttpUser):  # type: ignore[misc,unused-ignore]  # untyped where Locust is not installed
    """Asks for stories, and leaves one of four in the middle."""

    wait_time = constant(0)

    @task
    def ask(self) -> None:
        number, leaves = random.randrange(10**6), random.random() < 0.25
        messages = [{"role": "user", "content": f"Tell me a story about the keeper of light number {number}."}]
        body = {"model": "sample", "stream": True, "max_tokens": random.randrange(8, 65), "messages": messages}
        after, started = random.randrange(1, 40) if leaves else 10**9, time.perf_counter()
        try:
            with self.client.post(
                "/v1/chat/completions", json=body, stream=True, catch_response=True, timeout=300
            ) as response:
                response.success()
                end = read(response, after, started)
        except OSError as error:
            end = f"lost: {type(error).__name__} {error}"
        ENDS[end.partition(":")[0]] += 1
        if end.startswith("lost"):
            LOST.append(end)
        if end.startswith("error 503"):
            gevent.sleep(0.5)  # as its header asks for, about


def read(response: Any, most: int, started: float) -> str:
    """Read a stream up to so many lines, and say how it ended."""
    if response.status_code != 200:
        told = bool(response.status_code) and response.json()["error"]["message"]
        return f"error {response.status_code}" if told else f"lost: {response.status_code} {response.error}"
    for count, line in enumerate(filter(None, response.iter_lines(decode_unicode=True))):
        if count == 0:
            FIRST.append(time.perf_counter() - started)
        if line == "data: [DONE]":
            return "answered"
        if line.startswith("data: ") and "error" in json.loads(line[6:]):
            return "error in the stream: " + line
        if count >= most:
            return "left"
    return "lost: the stream ended without an end"


def memory(server: psutil.Process) -> tuple[float, float]:
    """Return the megabytes of the server, and of its children."""
    children = (each.memory_info().rss for each in server.children(recursive=True))
    return server.memory_info().rss / 1e6, sum(children) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="openvino:CPU")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=120)
    given = parser.parse_args()
    with _server.serving("--model", "sample", "--device", given.device, "--quiet") as (server, port):
        environment = Environment(user_classes=[Client], host=f"http://127.0.0.1:{port}", events=events)
        runner = environment.create_local_runner()
        runner.start(given.clients, spawn_rate=given.clients)
        started, killed = time.monotonic(), False
        while (now := time.monotonic() - started) < given.seconds:
            gevent.sleep(5)
            ours, engine = memory(server)
            print(f"{now + 5:4.0f} s: {sum(ENDS.values())} ended; server {ours:.0f} MB, engine {engine:.0f} MB")
            if not killed and now > given.seconds / 2:
                killed = True
                for child in server.children():
                    child.send_signal(signal.SIGKILL)
                    print(f"       its engine, process {child.pid}, was killed")
        runner.quit()
        first = sorted(FIRST) or [0.0]
        print(f"{given.clients} clients, {given.seconds} s: {dict(ENDS)}")
        print(f"first bytes after {first[len(first) // 2]:.2f} s, at most {first[-1]:.2f} s")
        for each in LOST[:20]:
            print(each)
    if LOST:
        raise SystemExit(f"{len(LOST)} requests were lost")


if __name__ == "__main__":
    main()

"""A server of its own thread, with a toy backend that writes down what it is asked."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from batching import wait_until
from phi3_core.models.request import ModelRequest
from phi3_core.selection import DeviceRequest
from phi3_core.server import app, opening, serving
from phi3_core.server.offers import Offers
from phi3_core.server.pool import ModelPool
from phi3_core.server.settings import ServerSettings
from phi3_core.store.store import Store

CRASHES, DIES, SLOW = 66, 67, 80
"""Numbers of tokens that ask for a fault after every two tokens, for longer than core starts the device again, and from
which on a token takes a hundredth of a second."""

CHORUS = """
import json, os, time
Engine.max_concurrency = 2
Engine.context_length = 4096
Engine.capabilities = frozenset({"json_schema"})

def note(**facts):
    with open(LOG, "a", encoding="utf-8") as file:
        print(json.dumps(facts), file=file)

@hookimpl
def load(artifact, device, options):
    note(load=str(artifact.path))
    with open(LOG, encoding="utf-8") as file:
        again = sum(json.loads(line).get("load") == str(artifact.path) for line in file) > 1
    if "sluggish" in str(artifact.path) or (again and "tired" in str(artifact.path)):
        time.sleep(60)
    return Engine()

@hookimpl
def generate(engine, request):
    sampling = request.sampling
    note(asked={name: getattr(sampling, name) for name in
                ("temperature", "top_k", "top_p", "repetition_penalty", "seed")}
         | {"max_new_tokens": request.max_new_tokens, "json_schema": request.json_schema})
    said = [token for token in request.prompt_ids if token not in request.stop_ids and token < 32000]
    count = 0
    try:
        for count in range(1, request.max_new_tokens + 1):
            if 60 <= request.max_new_tokens <= 67 and count == 3:
                if request.max_new_tokens % 2:
                    os._exit(9)
                raise RuntimeError("lost the device")
            if request.max_new_tokens >= 80:
                time.sleep(0.01)
            yield said[(count - 1) % len(said)]
    finally:
        note(made=count)
"""


def chorus(log: Path) -> str:
    """The changes for a backend of ``Plugins.add``, which repeats the prompt, and writes to a file what it is asked."""
    return CHORUS.replace("LOG", repr(str(log)))


class Running:
    """A server that runs, and its client."""

    def __init__(self, server: serving.Server, port: int, log: Path) -> None:
        self.server = server
        self.port = port
        self._log = log

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> http.client.HTTPResponse:
        """Send a request; ``_`` in names of headers stands for ``-``. Reading the response closes the connection."""
        connection = self.connect()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and not isinstance(body, bytes):
            body, sent = json.dumps(body).encode(), {"content-type": "application/json", **sent}
        connection.request(method, path, body, {"connection": "close", **sent})
        return connection.getresponse()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Send a request, and return the status and the document."""
        response = self.send(method, path, body, **headers)
        text = response.read()
        return response.status, json.loads(text) if text else None

    def chat(self, text: str = "Hello world", **more: Any) -> tuple[int, Any]:
        return self.ask("POST", "/v1/chat/completions", chat(text, **more))

    def models(self) -> list[Any]:
        """What is loaded, as ``/health`` says it."""
        return self.ask("GET", "/health")[1]["models"]

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[Any]:
        """Yield the documents of a stream, up to its end, which is left out."""
        response = self.send("POST", path, {**body, "stream": True})
        assert response.status == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield from events(response)

    def notes(self, kind: str) -> list[Any]:
        """What the backend has written down."""
        lines = self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []
        return [note[kind] for note in map(json.loads, lines) if kind in note]


def events(response: http.client.HTTPResponse) -> Iterator[Any]:
    for line in response:
        if line.startswith(b"data: ") and line != b"data: [DONE]\n":
            yield json.loads(line[6:])


def chat(text: str = "Hello world", **more: Any) -> dict[str, Any]:
    """A request to ``/v1/chat/completions``."""
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": 3, **more}


@contextlib.contextmanager
def running(
    source: str, log: Path, *, device: str = "chorus", available: Callable[[], int] | None = None, **more: Any
) -> Iterator[Running]:
    """Run a server for as long as it is needed.

    Args:
        source: the model.
        log: the file of :func:`chorus`.
        device: what ``--device`` takes.
        available: the memory that there is.
        **more: settings.
    """
    settings = ServerSettings(**{"models": (source,), "port": 0, "grace_s": 5.0, **more})
    request = ModelRequest(
        model=source, device=DeviceRequest(device=device), max_waiting=settings.max_waiting, check_answers=False
    )
    offers = Offers(settings.models, Store())
    with serving.listen(settings) as listening:
        pool = ModelPool(offers, lambda offer: opening.open_model(request, offer), available=available)
        pool.adopt(offers.first().name, opening.open_model(request, offers.first()))
        server = serving.Server(app.make_app(settings, pool), settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started or not thread.is_alive())
        try:
            yield Running(server, listening.getsockname()[1], log)
        finally:
            server.end()
            server.end()
            thread.join(30)
            assert not thread.is_alive()

"""A backend that answers what a test has written down, and a server of models on such backends.

The engine appends each request to a file, and takes its answer from another one: the first request gets the first
answer, and so on; those after the last answer get it too.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import phi3_core as phi3
import tokenizers

ENGINE = """
import json
Engine.context_length, Engine.max_concurrency = 32768, 1
Engine.capabilities = frozenset({capabilities})

@hookimpl
def load(artifact, device, options):
    return Engine()

@hookimpl
def generate(engine, request):
    with open({asked}, "a+") as file:
        file.seek(0)
        count = len(file.readlines())
        record = {"prompt_ids": list(request.prompt_ids), "json_schema": request.json_schema}
        print(json.dumps(record), file=file, flush=True)
    with open({answers}) as file:
        answers = json.load(file)
    yield from answers[min(count, len(answers) - 1)][: request.max_new_tokens]
"""


class Script:
    """What a model answers, and what it was asked.

    Args:
        plugins: where its backend is installed.
        name: the name of the backend.
        source: the folder with the model.
        folder: where the files are kept.
        capabilities: those of the engine.
    """

    def __init__(self, plugins: Any, name: str, source: Path, folder: Path, *capabilities: str) -> None:
        self._asked, self._answers = folder / f"{name}.jsonl", folder / f"{name}.json"
        self._plain = tokenizers.Tokenizer.from_file(str(source / "tokenizer.json"))
        self._source = source
        self._name = name
        changes = ENGINE
        values = {"capabilities": capabilities, "asked": str(self._asked), "answers": str(self._answers)}
        for key, value in values.items():
            changes = changes.replace("{" + key + "}", repr(value))
        plugins.add(name, changes=changes)

    def load(self) -> phi3.Model:
        """Load the model."""
        return phi3.load(str(self._source), device=self._name)

    def begin(self, *texts: str) -> None:
        """Forget what was asked, and set the next answers. Strings of control tokens in them are these tokens."""
        ids = [self._plain.encode(text, add_special_tokens=False).ids for text in texts]
        self._answers.write_text(json.dumps(ids), encoding="utf-8")
        self._asked.write_text("", encoding="utf-8")

    @property
    def prompts(self) -> list[str]:
        """The text of each prompt, with the strings of its control tokens."""
        return [self._plain.decode(record["prompt_ids"], skip_special_tokens=False) for record in self._records()]

    @property
    def schemas(self) -> list[Any]:
        """The JSON schema of each request; None where there was none."""
        return [json.loads(record["json_schema"] or "null") for record in self._records()]

    def _records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._asked.read_text(encoding="utf-8").splitlines()]


@contextlib.contextmanager
def served(scripts: Mapping[str, Script]) -> Iterator[str]:
    """Serve the models of scripts under their names, and provide the address of the server."""
    import uvicorn
    from phi3_core.server.app import make_app
    from phi3_core.server.pool import ModelPool
    from phi3_core.server.settings import ServerSettings

    names = tuple(scripts)
    pool = ModelPool(names, lambda name: scripts[name].load())
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        app = make_app(ServerSettings(models=names, port=port), pool)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()

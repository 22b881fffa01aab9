"""A backend that answers what a test has written down, and a server of models on such backends.

The engine appends each request to a file, and takes its answer from another one: the first request gets the first
answer, and so on; those after the last answer get it too.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import phi3_core as phi3
import tokenizers
from batching import wait_until

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
        answers, guided = json.load(file)
    ids = answers[min(count, len(answers) - 1)] if request.json_schema is None else guided
    yield from ids[: request.max_new_tokens]
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
        self.source = source
        self._name = name
        changes = ENGINE
        values = {"capabilities": capabilities, "asked": str(self._asked), "answers": str(self._answers)}
        for key, value in values.items():
            changes = changes.replace("{" + key + "}", repr(value))
        plugins.add(name, changes=changes)

    def load(self) -> phi3.Model:
        """Load the model."""
        return phi3.load(str(self.source), device=self._name)

    def begin(self, *texts: str, guided: str | None = None) -> None:
        """Forget what was asked, and set the next answers. Strings of control tokens in them are these tokens.

        Args:
            *texts: the answers, in order.
            guided: the answer wherever it has to follow a JSON schema; the first of the others by default.
        """
        ids = [
            self._plain.encode(text, add_special_tokens=False).ids
            for text in (*texts, texts[0] if guided is None else guided)
        ]
        self._answers.write_text(json.dumps([ids[:-1], ids[-1]]), encoding="utf-8")
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
    """Serve the models of scripts under the names of their folders, and provide the address of the server."""
    from phi3_core.server.app import make_app
    from phi3_core.server.offers import Offers
    from phi3_core.server.pool import ModelPool
    from phi3_core.server.serving import Server, listen
    from phi3_core.server.settings import ServerSettings
    from phi3_core.store.store import Store

    words = tuple(str(script.source) for script in scripts.values())
    settings = ServerSettings(models=words, port=0, grace_s=5.0)
    pool = ModelPool(Offers(words, Store()), lambda offer: scripts[offer.name].load())
    with listen(settings) as listening:
        server = Server(make_app(settings, pool), settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started or not thread.is_alive())
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.end()
            thread.join(30)
            assert not thread.is_alive()

"""``phi3 serve``: OpenAI's interface on this machine."""

from __future__ import annotations

import argparse
import importlib.util

from phi3_core.errors import UsageError

from . import options

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import Any

NEEDED = ("fastapi", "pydantic", "uvicorn")
"""Modules that the extra ``server`` brings."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "serve",
        help="answer OpenAI's clients over HTTP",
        description="Answer the clients of OpenAI's interface on this machine, until Ctrl-C.",
    )
    command.add_argument(
        "-m",
        "--model",
        action="append",
        help="a model, as for phi3 run; given again for others, which are loaded when they are asked for",
    )
    options.add_offline(command)
    options.add_device(command)
    options.add_engine(command)
    options.add_check(command)
    group = command.add_argument_group("how it serves")
    group.add_argument("--host", default="127.0.0.1", help="the address to listen on [127.0.0.1]")
    group.add_argument("--port", type=int, default=8000, help="the port to listen on, 0 for any free one [8000]")
    options.finish(command, call)


def call(given: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        said = f"the server needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"
        raise UsageError(said, hint='pip install "phi3-core[server]"')
    from phi3_core.config.values import find
    from phi3_core.worker.pool import WorkerPool

    words: list[str] = given.model or [find("model").value]
    with WorkerPool().prestart() as workers:
        # start-up: imported after the worker has started, so that both processes import in parallel
        from phi3_core.server import app, opening, serving
        from phi3_core.server.pool import ModelPool
        from phi3_core.server.settings import ServerSettings

        from . import output
        from .request import model_request

        settings = ServerSettings(host=given.host, port=given.port, models=tuple(words))
        with serving.listen(settings) as listening:
            progress = output.Progress()
            given.model = words[0]
            request = model_request(given, progress)
            try:
                model = opening.open_model(request, words[0], workers)
            finally:
                progress.clear()
            pool = ModelPool(tuple(words), lambda word: opening.open_model(request, word))
            pool.adopt(words[0], model)
            output.logger.warning(
                "%s on %s answers at %s/v1", model.name, model.device, serving.address(settings, listening)
            )
            return 130 if serving.run(app.make_app(settings, pool), settings, listening) else 0

"""``phi3 serve``: OpenAI's interface on this machine."""

from __future__ import annotations

import argparse
import importlib.util

from phi3_core.errors import UsageError

from . import configured, options

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    import socket
    from typing import Any

    from phi3_core.remote.servers import RunningServer
    from phi3_core.server.settings import ServerSettings

NEEDED = ("fastapi", "pydantic", "uvicorn")
"""Modules that the extra ``server`` brings."""
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}


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
        help="a model, as for phi3 run; repeat it for others, which are loaded when they are asked for",
    )
    configured.mark(command, "model")
    options.add_offline(command)
    options.add_device(command)
    options.add_engine(command)
    options.add_check(command)
    options.add_generation(command, texts=False)
    _add_serving(command.add_argument_group("how it serves"))
    _add_access(command.add_argument_group("who may ask"))
    options.finish(command, call, json="with --status, print JSON")


def _add_serving(group: Any) -> None:
    group.add_argument("--port", type=port, default=8000, help="the port to listen on, 0 for any free one [8000]")
    group.add_argument(
        "--max-waiting", metavar="N", type=whole, default=64, help="so many answers may wait for each model [64]"
    )
    group.add_argument(
        "--keep-alive",
        metavar="TIME",
        type=duration,
        default=300.0,
        help="unload a model that nobody asks for so long, such as 30s, 5m or 1h; -1 for never [5m]",
    )
    group.add_argument(
        "--grace",
        metavar="TIME",
        type=duration,
        default=30.0,
        help="what runs gets so long to end when the server is stopped [30s]",
    )
    group.add_argument("--status", action="store_true", help="show what the server at this host and port does, and end")


def _add_access(group: Any) -> None:
    group.add_argument(
        "--host", type=host, default="127.0.0.1", help="the address to listen on [127.0.0.1, this machine only]"
    )
    group.add_argument("--api-key-file", metavar="FILE", help="clients have to state the key in this file")
    names = {"metavar": "NAME", "action": "append", "default": []}
    group.add_argument("--allow-host", **names, help="another name by which clients reach the server")
    group.add_argument(
        "--allow-origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="let the pages of another origin ask, such as http://localhost:3000",
    )


def host(text: str) -> str:
    """Parse an address, which may have the brackets that it has in URLs."""
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def port(text: str) -> int:
    """Parse the number of a port."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 65535, got {text!r}")
    return int(text)


def whole(text: str) -> int:
    """Parse a number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, got {text!r}")
    return int(text)


def duration(text: str) -> float | None:
    """Parse a time such as ``90``, ``30s``, ``5m`` or ``1h`` to seconds; None for -1, which means for ever."""
    if text == "-1":
        return None
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS_S else (text, "s")
    try:
        seconds = float(number) * _UNITS_S[unit]
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"expected a time such as 30s, 5m, 1h or -1, got {text!r}")
    return seconds


def call(given: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if given.status:
        from .serve_status import show

        return show(given)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        said = f"the server needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"
        raise UsageError(said, hint='pip install "phi3-core[server]"')
    from phi3_core.worker.pool import WorkerPool

    with WorkerPool().prestart() as workers:
        # start-up: imported after the worker has started, so that both processes import in parallel
        from phi3_core.remote.servers import announced
        from phi3_core.server import app, opening, serving
        from phi3_core.server.offers import Offers
        from phi3_core.server.pool import ModelPool
        from phi3_core.store.store import Store

        from . import output
        from .request import model_request

        settings = _settings(given)
        offers = Offers(settings.models, Store())
        with serving.listen(settings) as listening:
            progress = output.Progress()
            given.model = settings.models[0]
            request = model_request(given, progress, max_waiting=settings.max_waiting)
            try:
                model = opening.open_model(request, offers.first(), workers)
            finally:
                progress.clear()
            pool = ModelPool(offers, lambda offer: opening.open_model(request, offer))
            pool.adopt(offers.first().name, model)
            where = serving.address(settings, listening)
            output.logger.info("%s on %s answers at %s/v1; Ctrl-C ends the server", model.name, model.device, where)
            server = serving.Server(app.make_app(settings, pool), settings)
            with announced(_announcement(settings, listening)):
                server.run(sockets=[listening])
            return 130 if server.interrupted else 0


def _announcement(settings: ServerSettings, listening: socket.socket) -> RunningServer:
    """Return what programs of the same user need to reach the server."""
    from phi3_core.remote.servers import RunningServer

    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}.get(settings.host, settings.host)  # noqa: S104
    return RunningServer(host=host, port=listening.getsockname()[1], token=settings.own_token or "")


def _settings(given: argparse.Namespace) -> ServerSettings:
    """Return the settings of the server.

    Raises:
        UsageError: others could reach it without a key, or a flag has an invalid value.
    """
    from phi3_core.remote.servers import new_token
    from phi3_core.server.keys import read_key
    from phi3_core.server.settings import ServerSettings

    key = None if given.api_key_file is None else read_key(given.api_key_file)
    settings = ServerSettings(
        host=given.host,
        port=given.port,
        models=(given.model,) if isinstance(given.model, str) else tuple(given.model),
        defaults=options.generation(given),
        max_waiting=given.max_waiting,
        keep_alive_s=given.keep_alive,
        grace_s=1e9 if given.grace is None else given.grace,
        api_key=key,
        own_token=new_token(),
        allowed_hosts=tuple(name.lower() for name in given.allow_host),
        allowed_origins=tuple(given.allow_origin),
    )
    settings.check()
    return settings

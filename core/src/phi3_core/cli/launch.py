"""``phi3 launch``: the settings with which clients of others use a server."""

from __future__ import annotations

import argparse
import os

from phi3_core.errors import UsageError

from . import options

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import Any

    from phi3_core.remote.clients import ClientSettings, Target

DEFAULT_URL = "http://127.0.0.1:8000"
_NAMES = ("aider", "anthropic", "continue", "llm", "open-webui", "openai")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "launch",
        help="the settings of clients that use phi3 serve",
        description="Print the settings with which a client uses phi3 serve, or write them.",
    )
    command.add_argument("client", metavar="CLIENT", choices=_NAMES, help=", ".join(_NAMES))
    command.add_argument("-m", "--model", help="the model [the one that the running server has loaded]")
    command.add_argument("--write", action="store_true", help="write the settings where the client reads them")
    command.add_argument("--url", help=f"the server's address [the running one's, else {DEFAULT_URL}]")
    command.add_argument("--api-key-file", metavar="FILE", help="the file with the server's API key")
    options.finish(command, call)


def call(given: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from phi3_core.remote.clients import CLIENTS, shell_lines

    from . import output

    settings = CLIENTS[given.client](_target(given))
    if given.write:
        _write(settings)
        output.logger.info("%s has the settings; next: %s", settings.file, settings.hint)
        return 0
    if settings.variables:
        print("\n".join(shell_lines(settings.variables, windows=os.name == "nt")))
    else:
        print(f"# {settings.file}")
        print("\n".join(settings.lines))
    output.logger.info("next: %s (--write writes %s)", settings.hint, settings.file)
    return 0


def _target(given: argparse.Namespace) -> Target:
    """Return the server and the model, from the flags and the running server.

    Raises:
        UsageError: the address is none, or no model is known.
    """
    from urllib.parse import urlsplit

    from phi3_core.remote import client
    from phi3_core.remote.clients import Target
    from phi3_core.remote.servers import running_servers

    from . import output

    url, model = given.url, given.model
    if url is None or model is None:
        for server in running_servers():
            if url is not None and url.rstrip("/") != server.address:
                continue
            try:
                listed = client.get(server, "/v1/models")
            except client.UnreachableError:
                continue
            url = url or server.address
            loaded = [each["id"] for each in (listed or {}).get("data", ()) if each["phi3"]["loaded"]]
            model = model or next(iter(loaded), None)
            break
        else:
            output.logger.info("no server of this user runs: phi3 serve starts one")
    address = (url or DEFAULT_URL).rstrip("/").removesuffix("/v1")
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path:
        raise UsageError(f"{given.url!r} is no address of a server", hint=f"such as {DEFAULT_URL}")
    if model is None:
        from phi3_core.config.values import value

        model = value("model")
    return Target(address=address, model=model, key=_key(given.api_key_file))


def _key(file: str | None) -> str | None:
    if file is None:
        return None
    from phi3_core.server.keys import read_key

    return read_key(file)


def _write(settings: ClientSettings) -> None:
    """Add the settings to the client's file.

    Raises:
        UsageError: it has other ones, or cannot be read or written.
    """
    from phi3_core.disk import raise_if_full, reason
    from phi3_core.remote.clients import merged

    file = settings.file
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        new = merged(settings, text)
        if new is None:
            raise UsageError(
                f"{file} has other settings already", hint="without --write they are printed, to add by hand"
            )
        if new != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(new, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError):
            raise_if_full(error, file, hint="without --write they are printed")
        said = reason(error) if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"{file} cannot be changed: {said}", hint="without --write they are printed") from error

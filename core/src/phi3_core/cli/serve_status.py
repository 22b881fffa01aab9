"""``phi3 serve --status``: what a running server does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from phi3_core.errors import Phi3Error, UsageError

if TYPE_CHECKING:
    import argparse

_LIMIT_S = 15.0
"""Seconds that the server has to answer, in which it may ask each engine for a token."""


def show(given: argparse.Namespace) -> int:
    """Print what the server at ``--host`` and ``--port`` does; return 0 if it is well, else 1."""
    from . import output

    status, document = _ask(given.host, given.port)
    if given.json:
        output.print_json(document)
    else:
        _print(document)
    return 0 if status == 200 else 1


def _ask(host: str, port: int) -> tuple[int, dict[str, Any]]:
    from phi3_core.remote import client

    try:
        status, body = client.get_from(host, port, "/health", limit_s=_LIMIT_S)
        document = json.loads(body)
    except (client.UnreachableError, ValueError) as error:
        where = f"{host}, port {port}"
        if isinstance(error.__cause__, ConnectionRefusedError):
            raise UsageError(f"no server listens on {where}", hint="phi3 serve starts one") from error
        raise Phi3Error(f"what listens on {where} does not answer as phi3 serve does: {error}") from error
    if not isinstance(document, dict) or "models" not in document:
        raise Phi3Error(f"what listens on {host}, port {port} is not phi3 serve", hint="--port names another port")
    return status, document


def _print(document: dict[str, Any]) -> None:
    from . import output

    print(f"{document['status']}, up for {document['uptime_s']:.0f} s, phi3-core {document['version']}")
    if not document["models"]:
        print("no model is loaded now")
        return
    rows = [
        (
            each["model"],
            each["device"],
            each["precision"],
            each["state"] + (f": {each['error']}" if each["error"] else ""),
            each["running"],
            each["waiting"],
        )
        for each in document["models"]
    ]
    output.print_table(("model", "device", "precision", "state", "running", "waiting"), rows)

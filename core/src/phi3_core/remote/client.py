"""Requests to a running server."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any

from phi3_core.errors import BackendError, PromptTooLongError, QueueFullError, UsageError

from .servers import RunningServer

CONNECT_S = 2.0
"""Seconds that a server has to say which models it has. It does so without its engines."""
_HINT = "--no-server loads the model here"
_ERRORS = {"context_length_exceeded": PromptTooLongError, "queue_full": QueueFullError}


class UnreachableError(Exception):
    """The server has not answered, so that nothing is lost by loading the model."""


def get(server: RunningServer, path: str) -> Any:
    """Return the JSON document at a path; None if the server has none there.

    Raises:
        UnreachableError: the server does not answer.
    """
    status, body = get_from(server.host, server.port, path, headers=_headers(server))
    try:
        return json.loads(body) if status == 200 else None
    except ValueError as error:
        raise UnreachableError(str(error)) from error


def get_from(
    host: str, port: int, path: str, *, headers: Mapping[str, str] = {}, limit_s: float = CONNECT_S
) -> tuple[int, bytes]:
    """Return the status and the body of an answer.

    Raises:
        UnreachableError: nothing answers there.
    """
    connection = http.client.HTTPConnection(host, port, timeout=limit_s)
    try:
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(str(error)) from error
    finally:
        connection.close()


def post(server: RunningServer, path: str, content: Any) -> Any:
    """Return the JSON document that answers another one.

    Raises:
        BackendError: the server cannot answer.
        UsageError: it refuses the request.
    """
    with _open(server, path, content) as response:
        try:
            return json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _broken_off(server, error) from error


def events(server: RunningServer, path: str, content: Any) -> Iterator[Any]:
    """Yield the documents of a stream of server-sent events. Closing the iterator ends the answer.

    Raises:
        BackendError: the server cannot answer, or not to the end.
        UsageError: it refuses the request.
    """
    with _open(server, path, content) as response:
        try:
            for line in response:
                if not line.startswith(b"data: "):
                    continue
                data = line[len(b"data: ") :].strip()
                if data == b"[DONE]":
                    return
                document = json.loads(data)
                if "error" in document:
                    raise _error(document)
                yield document
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _broken_off(server, error) from error
    raise _broken_off(server, "the connection was closed")


@contextlib.contextmanager
def _open(server: RunningServer, path: str, content: Any) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=CONNECT_S)
    try:
        try:
            connection.connect()
            connection.sock.settimeout(None)  # the server watches its engines, and answers for as long as they do
            headers = {**_headers(server), "content-type": "application/json"}
            connection.request("POST", path, json.dumps(content).encode(), headers)
            response = connection.getresponse()
            if response.status != 200:
                raise _error(json.loads(response.read()))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _broken_off(server, error) from error
        yield response
    finally:
        connection.close()


def _headers(server: RunningServer) -> dict[str, str]:
    return {"authorization": f"Bearer {server.token}"}


def _error(document: Any) -> Exception:
    about = document.get("error") if isinstance(document, dict) else None
    if not isinstance(about, dict):
        return BackendError("the server has answered with an error of unknown form", hint=_HINT)
    message, code = str(about.get("message")), about.get("code")
    kind = _ERRORS.get(str(code)) or (UsageError if about.get("type") == "invalid_request_error" else BackendError)
    return kind(f"the server says: {message}", hint=_HINT)


def _broken_off(server: RunningServer, why: object) -> BackendError:
    return BackendError(f"the server at {server.address} has broken off: {why}", hint=_HINT)

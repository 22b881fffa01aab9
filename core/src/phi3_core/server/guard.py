"""Who may ask the server, and how much: checked before a request reaches its route.

Any web page can send requests to a port of the machine that it is shown on. So a request states the server's own name
(or a page's domain could be made to mean this machine: DNS rebinding), and pages of other origins are refused.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import time
import uuid
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response

from .errors import ApiError, respond
from .streaming import ClientGoneError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .metrics import Metrics
    from .settings import ServerSettings

logger = logging.getLogger("phi3_core")

BODY_LIMIT_S = 60.0
"""Seconds that a client has to send the body of a request."""
_PUBLIC = ("/", "/health")
"""What can be read without a key, besides the files of the page: a browser sends none with an address."""
PAGE = "/page/"
"""The beginning of the paths of the page's files."""


class Guard:
    """Checks requests, and gives each an id.

    Args:
        app: what answers the requests that are let through.
        settings: what is allowed.
        metrics: counts all requests.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._keys = [key.encode() for key in (settings.api_key, settings.own_token) if key is not None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI asks for it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0
        method = scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}  # the body of the answer is not sent: uvicorn has the scope as it was
        headers = Headers(scope=scope)
        request_id = scope["phi3_request_id"] = f"req_{uuid.uuid4().hex}"
        shared = {"x-request-id": request_id, "x-content-type-options": "nosniff", **self._cors(headers)}

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(shared)
            await send(message)

        try:
            try:
                self._check(scope, headers)
                if is_preflight(scope, headers):
                    await Response(status_code=204, headers=_preflight(headers))(scope, receive, send_on)
                    return
                if scope["method"] in {"POST", "PUT", "PATCH", "DELETE"}:
                    receive = await self._with_body(headers, receive)
            except ClientGoneError:
                return
            except ApiError as error:
                # A body that was not read would be taken for the next request.
                await respond(error, scope["path"], request_id, connection="close")(scope, receive, send_on)
                return
            await self._app(scope, receive, send_on)
        finally:
            seconds = time.perf_counter() - started
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.count_request(path, status, seconds)
            level = logging.DEBUG if scope["path"].startswith(PAGE) else logging.INFO  # the page has dozens of files
            logger.log(level, "%s %s: %s in %.3f s, %s", method, path, status or "gone", seconds, request_id)

    def _check(self, scope: Scope, headers: Headers) -> None:
        _check_framing(headers)
        self._check_host(headers.get("host", ""))
        self._check_origin(scope, headers)
        if not is_preflight(scope, headers):
            self._check_key(scope, headers)

    def _check_host(self, host: str) -> None:
        """Refuse names that the server does not have. An IP address cannot be another server's name."""
        name = _host_name(host)
        if name is None or not (
            _is_address(name) or name in {"localhost", self._settings.host.lower(), *self._settings.allowed_hosts}
        ):
            raise ApiError(403, "the header Host does not name this server; phi3 serve --allow-host NAME", code="host")

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        """Refuse requests of other origins' pages."""
        origin = headers.get("origin")
        if origin is None:
            # Pages can send some requests without an origin, but not without this.
            if headers.get("sec-fetch-site") in {"cross-site", "same-site"} and not _is_navigation(scope, headers):
                raise _origin_refused("another page")
        elif origin not in self._settings.allowed_origins and origin.lower() != f"http://{headers.get('host')}".lower():
            raise _origin_refused(repr(origin))

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        path = scope["path"]
        if self._settings.api_key is None or path in _PUBLIC or path.startswith(PAGE):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = headers.get("x-api-key", "")
        stated = given.strip().encode("latin-1", "replace")
        if not sum(hmac.compare_digest(stated, key) for key in self._keys):  # always all, in the same time
            words = "the API key is wrong" if given else "an API key is needed: Authorization: Bearer KEY"
            raise ApiError(401, words, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    async def _with_body(self, headers: Headers, receive: Receive) -> Receive:
        """Read the body, and return a ``receive`` that has it.

        Raises:
            ApiError: it is larger than allowed, compressed, or does not arrive in time.
            ClientGoneError: the client has gone meanwhile.
        """
        most = self._settings.max_body_bytes
        too_large = ApiError(413, f"the body has over {most} bytes", code="body_too_large")
        if headers.get("content-encoding", "identity") != "identity":
            raise ApiError(415, "bodies are read as they are: no Content-Encoding is supported", code="encoding")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > most:
            raise too_large
        body = bytearray()
        end = time.monotonic() + BODY_LIMIT_S
        while True:
            try:
                message = await asyncio.wait_for(receive(), end - time.monotonic())
            except asyncio.TimeoutError:
                raise ApiError(408, f"the body did not arrive within {BODY_LIMIT_S:g} s", code="timeout") from None
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            body += message.get("body", b"")
            if len(body) > most:
                raise too_large
            if not message.get("more_body"):
                break
        return _Replay(bytes(body), receive)

    def _cors(self, headers: Headers) -> dict[str, str]:
        """Return the headers that let the pages of named origins read the answer."""
        origin = headers.get("origin")
        if origin is None or origin not in self._settings.allowed_origins:
            return {}
        names = {"access-control-allow-origin": origin, "access-control-expose-headers": "x-request-id, retry-after"}
        return {**names, "vary": "Origin"}


class _Replay:
    """A ``receive`` with a body that has been read already."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _check_framing(headers: Headers) -> None:
    """Refuse a body with two lengths: a proxy may take the other one, and see the next request elsewhere."""
    if "content-length" in headers and "transfer-encoding" in headers:
        raise ApiError(400, "the request has both Content-Length and Transfer-Encoding", code="framing")


def is_preflight(scope: Scope, headers: Headers) -> bool:
    """Return whether a browser asks if a page may send a request."""
    return scope["method"] == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def _preflight(headers: Headers) -> dict[str, str]:
    found = {
        "access-control-allow-methods": "GET, POST",
        "access-control-allow-headers": headers.get("access-control-request-headers", ""),
        "access-control-max-age": "600",
    }
    if headers.get("access-control-request-private-network") == "true":
        found["access-control-allow-private-network"] = "true"
    return found


def _origin_refused(who: str) -> ApiError:
    return ApiError(
        403, f"requests of {who} are refused; phi3 serve --allow-origin names those that may ask", code="origin"
    )


def _is_navigation(scope: Scope, headers: Headers) -> bool:
    """Return whether a user has followed a link to the page."""
    return scope["method"] == "GET" and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"


def _host_name(host: str) -> str | None:
    """Return the name in a header ``Host``, without the port; None if it is none."""
    try:
        parts = urlsplit(f"//{host}")
        has_port = parts.port is not None  # raises for what is no port
    except ValueError:
        return None
    is_plain = parts.netloc == host and "@" not in host and (has_port or not host.endswith(":"))
    return parts.hostname if is_plain else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

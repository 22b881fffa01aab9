"""The chat page at ``/``: static files, with headers that let it load nothing and reach nothing but this server.

The files are listed when this module is imported, and a request is answered from that list: no path of a request is
ever joined to a folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING

from attrs import field, frozen
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

if TYPE_CHECKING:
    from importlib.abc import Traversable

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
"""The media types of the files that are served. Others of the package, such as this module, are not."""

POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    # Scripts cannot make elements of text, except through the library that removes what is harmful from it.
    "require-trusted-types-for 'script'",
    "trusted-types dompurify",
)
HEADERS = {
    "Cache-Control": "no-cache",  # asks each time, so that a newer version is seen at once
    "Content-Security-Policy": "; ".join(POLICY),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@frozen
class PageFile:
    """A file of the page."""

    content: bytes
    media_type: str
    etag: str = field(init=False)

    @etag.default
    def _digest(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'

    async def __call__(self, request: Request) -> Response:
        """Answer with the file, or say that the browser has it already."""
        headers = {**HEADERS, "ETag": self.etag}
        known = request.headers.get("if-none-match", "")
        if self.etag in (part.strip().removeprefix("W/") for part in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def _listed(folder: Traversable, prefix: str) -> Iterator[tuple[str, PageFile]]:
    for entry in folder.iterdir():
        suffix = entry.name[entry.name.rfind(".") :]
        if entry.is_dir():
            yield from _listed(entry, f"{prefix}{entry.name}/")
        elif suffix in TYPES:
            yield f"{prefix}{entry.name}", PageFile(entry.read_bytes(), TYPES[suffix])


FILES = dict(_listed(resources.files(__name__), "/page/"))
"""What is served, by its path."""
FILES["/"] = FILES.pop("/page/index.html")


def router() -> APIRouter:
    """Return the routes of the page."""
    routes = APIRouter()
    for path, file in FILES.items():
        routes.add_api_route(path, file.__call__, methods=["GET", "HEAD"], include_in_schema=False)
    return routes

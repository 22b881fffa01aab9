"""The chat page's files and headers. What the page does is tested in a browser, in ``page/``."""

from __future__ import annotations

import asyncio
import hashlib
import re
from importlib import resources

import pytest

pytest.importorskip("fastapi", reason="needs the extra server")
from fastapi import FastAPI
from phi3_core.server import page

PACKAGE = resources.files(page)
VENDOR = "/page/vendor/"
LARGEST = 300_000
"""Bytes of all that is served."""


@pytest.fixture(scope="module")
def app():
    application = FastAPI()
    application.include_router(page.router())
    return application


def get(app, path, *, method="GET", **headers):
    """Ask the application as a server would; returns (status, headers, body)."""
    sent = []
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b""}

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(app({**scope, "headers": named, "root_path": "", "http_version": "1.1"}, receive, send))
    head = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], head, b"".join(message.get("body", b"") for message in sent[1:])


def test_the_page_is_at_the_root(app):
    status, headers, body = get(app, "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert body == PACKAGE.joinpath("index.html").read_bytes()


@pytest.mark.parametrize("path", sorted(page.FILES))
def test_each_file_has_its_type_and_the_headers_that_keep_it_in(app, path):
    status, headers, body = get(app, path)
    assert status == 200
    assert body
    assert headers["x-content-type-options"] == "nosniff"
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"


def test_a_file_that_the_browser_has_is_not_sent_again(app):
    _, headers, _ = get(app, "/page/app.js")
    assert headers["cache-control"] == "no-cache"
    for known in (headers["etag"], f'"other", W/{headers["etag"]}'):
        status, again, body = get(app, "/page/app.js", if_none_match=known)
        assert (status, body, again["etag"]) == (304, b"", headers["etag"])
    assert get(app, "/page/app.js", if_none_match='"other"')[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        *("/page", "/page/", "/page/__init__.py", "/page/vendor/README.md", "/page/index.html", "/index.html"),
        *("/page/../page/app.js", "/page/..%2f__init__.py", "/page/%2e%2e/__init__.py", "/page//app.js"),
        *("/page/app.js/", "/page/vendor/../app.js", "/page/\\..\\__init__.py", "/page/app.js\0", "//page/app.js"),
    ],
)
def test_nothing_else_is_served(app, path):
    assert get(app, path)[0] in {307, 404}


def test_only_reading_is_allowed(app):
    assert get(app, "/", method="POST")[0] == 405
    assert get(app, "/", method="HEAD")[0] == 200


def test_what_the_files_name_is_there():
    """References in the page, and imports of its modules; nothing in it is inline or from elsewhere."""
    for path, file in page.FILES.items():
        if "/vendor/" in path or not path.endswith((".js", "/")):
            continue
        text = file.content.decode("utf-8")
        if path == "/":
            named = [f"/{name}" for name in re.findall(r'(?:href|src)="(page/[^"]+)"', text)]
            assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style|javascript:", text)
            assert not re.search(r'(?:href|src)="(?!page/|#)', text)
        else:
            inner = re.findall(r'^(?:import|export)\b[^;]*?"\./([^"]+)";', text, flags=re.MULTILINE)
            named = [f"/page/{name}" for name in inner]
        assert set(named) <= set(page.FILES), path


def test_the_libraries_are_those_that_their_readme_names():
    readme = (PACKAGE / "vendor" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^([0-9a-f]{64})  (\S+)$", readme, re.MULTILINE)
    files = [(hashlib.sha256(file.content).hexdigest(), path) for path, file in page.FILES.items() if VENDOR in path]
    assert sorted(listed) == sorted((digest, path.removeprefix(VENDOR)) for digest, path in files)


def test_the_page_is_small():
    assert sum(len(file.content) for file in page.FILES.values()) < LARGEST

"""One connection to the stand-in."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import time
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
FILE = re.compile(r"/([^/]+/[^/]+)/(?:resolve|cdn)/([^/]+)/(.*)")
ERRORS = {401: "RepoNotFound", 403: "GatedRepo", 404: "EntryNotFound"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.hub: Any = getattr(self.server, "hub")  # noqa: B009 - the server of this package has one
        self.hub.connections.add(self.connection)

    def finish(self) -> None:
        self.hub.connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        from . import Request

        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        api, file = API.fullmatch(url.path), FILE.fullmatch(url.path)
        name = unquote(file[3]) if file and not api else "api"
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.token = headers.get("authorization", "").removeprefix("Bearer ")
        self.log = Request(self.command, self.path, name, headers.get("range"), headers)
        self.hub.requests.append(self.log)
        fault = self.hub.find_fault(name, self.token, of_body=False)
        if fault:
            self._fail(fault.status, ERRORS.get(fault.status) if fault.code is None else fault.code, fault.retry_after)
        elif not (match := api or file) or match[1] not in self.hub.repositories:
            # The hub does not tell strangers whether a repository is private or not there.
            self._fail(404 if self.token else 401, "RepoNotFound")
        else:
            repository = self.hub.repositories[match[1]]
            revision = unquote((api[3] if api else file[2]) or "main")
            commit = repository.branches.get(revision, revision)
            files = repository.commits.get(commit)
            if files is None:
                self._fail(404, "RevisionNotFound")
            elif api:
                query = {**parse_qs(url.query), **parse_qs(body.decode())}
                self._send(200, {}, json.dumps(describe(api, repository, commit, query)).encode())
            elif name not in files:
                self._fail(404, "EntryNotFound")
            elif len(files[name]) < repository.large_from:
                self._file(commit, name, files[name], (repository.etag or git_oid)(files[name]))
            elif self.connection.getsockname()[1] == int(self.hub.cdn_url.rpartition(":")[2]):
                self._file(commit, name, files[name], sha256(files[name]))
            else:
                location = f"{self.hub.cdn_url}/{match[1]}/cdn/{commit}/{quote(name)}"
                large: dict[str, Any] = {
                    "X-Linked-ETag": f'"{sha256(files[name])}"',
                    "X-Linked-Size": str(len(files[name])),
                }
                self._send(302, {"X-Repo-Commit": commit, "Location": location, **large}, b"")

    do_HEAD = do_POST = do_GET  # noqa: N815 - the names are http.server's

    def _file(self, commit: str, name: str, data: bytes, etag: str) -> None:
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        fault = self.hub.find_fault(name, self.token, of_body=True) if self.command == "GET" else None
        if fault and fault.page is not None:
            self._send(200, {"Content-Type": "text/html"}, fault.page)
            return
        if fault and fault.wrong_byte is not None:
            at = fault.wrong_byte
            data = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if self.headers.get("If-None-Match") == headers["ETag"]:
            self._send(304, headers, b"")
        elif not wanted or (fault and fault.whole):
            self._send(200, headers, data, fault)
        elif int(wanted[1]) >= len(data):
            self._send(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
        else:
            first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            self._send(206, headers, data[first : last + 1], fault)

    def _fail(self, status: int, code: str | None, retry_after: str | None = None) -> None:
        headers = {"X-Error-Code": code, "Retry-After": retry_after}
        self._send(status, {key: value for key, value in headers.items() if value is not None}, b"")

    def _send(self, status: int, headers: dict[str, str], body: bytes, fault=None) -> None:
        self.log.status = status
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(body, fault)

    def _send_body(self, body: bytes, fault) -> None:
        end, sent, step, hold = len(body), 0, 2**16, None
        if fault:
            end = end if fault.cut_after is None else min(fault.cut_after, end)
            step = max(fault.bytes_per_second // 50, 1) if fault.bytes_per_second else step
            hold = fault.hold_after
        while sent < end:
            if hold == sent:
                self.hub.released.wait(30)
            stop = min(sent + step, end, hold if hold is not None and hold > sent else end)
            self.wfile.write(body[sent:stop])
            with self.hub.changed:
                self.log.sent += stop - sent
                self.hub.changed.notify_all()
            sent = stop
            if fault and fault.bytes_per_second:
                time.sleep(0.02)
        if end < len(body):
            self.close_connection = True
            hang_up(self.connection)


def describe(api: re.Match, repository, commit: str, query: dict[str, list[str]]):
    """What the API says about a commit."""
    entries = []
    for name, data in repository.commits[commit].items():
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": git_oid(data)}
        if len(data) >= repository.large_from:  # git has a small file that points at the large one
            large: dict[str, Any] = {"oid": sha256(data), "sha256": sha256(data), "size": len(data), "pointerSize": 134}
            entry |= {"oid": git_oid(b"pointer " + large["oid"].encode()), "lfs": large}
        entries.append(entry)
    if api[2] == "paths-info":
        return [entry for entry in entries if entry["path"] in query.get("paths", ())]
    if api[2] == "tree":
        return [entry for entry in entries if entry["path"].startswith(unquote(api[4] or ""))]
    with_blobs = ("size", "blobId", "lfs") if "blobs" in query and not repository.names_only else ()
    siblings = [
        {"rfilename": e["path"], **{k: v for k, v in (e | {"blobId": e["oid"]}).items() if k in with_blobs}}
        for e in entries
    ]
    return {"id": api[1], "modelId": api[1], "sha": commit, "private": False, "tags": [], "siblings": siblings}


def hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_oid(data: bytes) -> str:
    """What git calls a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

"""A local stand-in for the Hugging Face hub: its HTTP protocol, as far as the real client speaks it to read models.

Large files go the way they go on the hub: ``resolve`` redirects to another origin, which serves the bytes. Xet
headers are never sent, as by a mirror, so every client takes plain HTTP. Nothing here knows about what it tests.
"""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path

from ._handler import Handler, git_oid, hang_up


@dataclass
class Request:
    """One request, and how it was answered."""

    method: str
    path: str
    name: str
    """The file it is about, or ``api``."""
    range: str | None
    headers: dict[str, str]
    status: int = 0
    sent: int = 0
    """Bytes of the body."""


@dataclass
class Fault:
    """What goes wrong with a file, ``times`` times or always."""

    times: int | None = None
    status: int = 0
    code: str | None = None
    retry_after: str | None = None
    token: str | None = None
    """Requests that carry this token are spared."""
    cut_after: int | None = None
    """Close the connection after so many bytes of the body."""
    hold_after: int | None = None
    """Stop sending after so many bytes of the body, until :meth:`HubServer.release`."""
    wrong_byte: int | None = None
    """Change the byte at this offset of the file."""
    bytes_per_second: int = 0
    page: bytes | None = None
    """Answer with this instead, as the log-in page of a hotel does."""
    whole: bool = False
    """Ignore the Range header."""


@dataclass
class Repository:
    """Commits by their hash, and branches that point at them. Files from ``large_from`` bytes on are LFS files."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    large_from: int = 0
    names_only: bool = False
    """List files without sizes and hashes, as some mirrors do."""
    etag: Callable[[bytes], str] | None = None
    """What a mirror has for an entity tag, if it is not the hub's."""


class HubServer:
    """Serves repositories that are folders on disk or dicts of names and bytes."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.requests: list[Request] = []
        self.changed = threading.Condition()
        self.released = threading.Event()
        self.connections: set[socket.socket] = set()
        self._gone = False
        self._servers = [_Server(self), _Server(self)]  # the hub and its content network: two origins
        self.url, self.cdn_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def add(self, name: str, files: dict[str, bytes] | Path, *, branch: str = "main", large_from: int = 4096) -> str:
        """Commit ``files`` (all that the branch is to have) and return the commit."""
        if isinstance(files, Path):
            files = {p.relative_to(files).as_posix(): p.read_bytes() for p in files.rglob("*") if p.is_file()}
        listing = "\n".join(f"{git_oid(data)} {file}" for file, data in sorted(files.items()))
        commit = hashlib.sha1(f"{name} {branch}\n{listing}".encode()).hexdigest()
        repository = self.repositories.setdefault(name, Repository())
        repository.commits[commit] = dict(files)
        repository.branches[branch] = commit
        repository.large_from = large_from
        return commit

    def fault(self, where: str, **how) -> None:
        """Let something go wrong with the file ``where``, with the ``api``, or with anything (``*``)."""
        with self.changed:
            self.faults.setdefault(where, []).append(Fault(**how))

    def mend(self) -> None:
        """Take all faults away, and go on with what is held."""
        with self.changed:
            self.faults.clear()
        self.release()

    def release(self) -> None:
        self.released.set()

    def bodies(self, name: str) -> list[Request]:
        """The requests that were answered with content of the file ``name``."""
        return [r for r in list(self.requests) if r.name == name and r.method == "GET" and r.status in {200, 206}]

    def served(self, name: str) -> int:
        """How many bytes of a file were sent in all."""
        return sum(request.sent for request in self.bodies(name))

    def wait_for(self, condition, timeout: float = 20) -> None:
        """Wait until ``condition()`` holds; it is tried after everything that is sent."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout), "the server waited in vain"

    def find_fault(self, name: str, token: str, *, of_body: bool) -> Fault | None:
        """The first fault that now befalls the file ``name``, which uses it up once."""
        with self.changed:
            for fault in (*self.faults.get(name, ()), *self.faults.get("*", ())):
                layers_kept_at_8_bits = fault.times == 0 or (fault.token is not None and fault.token == token)
                if not layers_kept_at_8_bits and bool(fault.status) != of_body:
                    fault.times = fault.times and fault.times - 1
                    return fault
        return None

    def stop(self) -> None:
        """Be gone: open connections end, new ones are refused."""
        if not self._gone:
            self._gone = True
            for server in self._servers:
                server.shutdown()
                server.server_close()
            for connection in list(self.connections):
                hang_up(connection)
            self.release()  # into connections that are gone


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, hub: HubServer) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request, client_address) -> None:
        """Clients that go away are what the tests are about."""

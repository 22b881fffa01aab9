"""Access to the hub with the session, endpoint and token of huggingface_hub 0.3x, 1.x or 2.x.

``hf_hub_download`` is not used: since 1.18 it does not resume a file after its process was killed, and it never
verifies hashes. ``HfApi`` is not used either: its calls also report which packages are installed, and recent versions
ask the hub for a list of agents to detect. The user's settings (endpoint, token, offline mode, proxies, certificates, a
custom session) are read through names that are public in all major versions; the rest is plain HTTP.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from attrs import frozen

from phi3_core import __version__
from phi3_core.config import values
from phi3_core.errors import ModelError, Phi3Error

from .refusals import TransientError, raise_translated, refusal, settings_accepted

BACKOFF_S = 0.5
WAIT_AT_MOST_S = 60.0
BLOCK = 2**16
LISTING_AT_MOST = 2**26
_REDIRECTS = 5
T = TypeVar("T")


class Retry:
    """Limits the number of attempts, with growing pauses between them.

    Args:
        tries: maximum number of attempts without progress.
        wait: called with the seconds of each pause.
    """

    def __init__(self, *, tries: int, wait: Callable[[float], object]) -> None:
        self._tries = tries
        self._wait = wait
        self._failures = 0

    def spend(self, error: TransientError) -> None:
        """Count a failed attempt, and wait for the next.

        Raises:
            ModelError: no attempt is left.
        """
        self._failures += 1
        if self._failures >= self._tries:
            raise ModelError(str(error), hint=error.hint) from error
        pause = BACKOFF_S * 2 ** (self._failures - 1) if error.after is None else error.after
        self._wait(min(pause, WAIT_AT_MOST_S))

    def renew(self) -> None:
        """Reset the count, after progress was made."""
        self._failures = 0


def retrying(ask: Callable[[], T], *, tries: int = 3) -> T:
    """Return ``ask()``, which is called up to ``tries`` times.

    Raises:
        ModelError: no attempt succeeded.
    """
    retry = Retry(tries=tries, wait=time.sleep)
    while True:
        try:
            return ask()
        except TransientError as error:
            retry.spend(error)


def offline_hint(offline: bool) -> str | None:
    """Return how to end offline mode, or None if it is off.

    Args:
        offline: the value of ``--offline``.
    """
    if offline:
        configured = values.find("offline")
        if not configured.value:
            return "leave out --offline"
        return f"unset {configured.where}" if configured.source == "variable" else "phi3 config unset offline"
    on = {"1", "ON", "YES", "TRUE"}
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):  # the hub's client reads both
        if os.environ.get(name, "").upper() in on:
            return f"unset {name}"
    return None


@frozen(kw_only=True)
class Body:
    """The content of a file, or the rest of it."""

    start: int
    """Offset of the first block in the file."""
    total: int | None
    """Size of the whole file in bytes, if the response states it."""
    blocks: Iterable[bytes]


class HubClient:
    """Access to one repository on the hub.

    Args:
        repository: ``OWNER/NAME``.
        revision: a commit, branch or tag; None for the newest commit.
        offline: the value of ``--offline``.

    Raises:
        ModelError: the hub is not to be used, or the repository's name is invalid.
    """

    def __init__(self, repository: str, revision: str | None, *, offline: bool) -> None:
        if hint := offline_hint(offline):
            raise _offline(repository, hint)
        with settings_accepted():
            self._set_up(repository)
        self.repository = repository
        self.revision = revision

    def _set_up(self, repository: str) -> None:
        # Imported here, because it reads its settings from the environment on import; and for
        # start-up: a quarter of a second, needed only to use the hub.
        import huggingface_hub
        from huggingface_hub import constants, errors, utils

        if constants.HF_HUB_OFFLINE:
            raise _offline(repository, "unset HF_HUB_OFFLINE")
        tools: Any = utils  # not all major versions declare these names as public
        try:
            tools.validate_repo_id(repository)
        except errors.HFValidationError as error:
            hint = "a repository is written OWNER/NAME"
            raise ModelError(f"{repository!a} cannot be a repository on the hub", hint=hint) from error
        self.endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        self._url_of: Any = huggingface_hub.hf_hub_url
        self._session: Any = tools.get_session()
        self._timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        agent = f"phi3-core/{__version__}; hf_hub/{huggingface_hub.__version__}"
        # A compressed download cannot be resumed.
        self._headers = {"user-agent": agent, "accept-encoding": "identity"}
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else huggingface_hub.get_token()
        if token:
            self._headers["authorization"] = f"Bearer {token}"

    def at(self, commit: str) -> HubClient:
        """Return access to the same repository at a commit."""
        client = copy.copy(self)
        client.revision = commit
        return client

    def listing(self) -> tuple[str, list[dict[str, Any]]]:
        """Return the commit that the revision points to, and the hub's entry for each of its files.

        Raises:
            TransientError: the failure may be temporary.
            ModelError: the repository or revision does not exist, or access is denied.
        """
        revision = f"/revision/{quote(self.revision, safe='')}" if self.revision else ""
        content = bytearray()
        with self._answer(
            f"{self.endpoint}/api/models/{self.repository}{revision}?blobs=true", self._headers
        ) as answer:
            status, headers, blocks = answer
            if status != 200:
                raise refusal(self, status, headers, None)
            for block in blocks:
                content += block
                if len(content) > LISTING_AT_MOST:
                    raise self._nonsense()
        try:
            said = json.loads(content)
            commit, entries = str(said["sha"]), list(said["siblings"])
        except (ValueError, TypeError, KeyError) as error:
            raise self._nonsense() from error
        if not re.fullmatch(r"[0-9a-f]{40,64}", commit):
            raise self._nonsense()
        return commit, entries

    def inspect(self, name: str) -> tuple[int | None, str]:
        """Return the size of a file in bytes, if the server states it, and its entity tag, often a hash of its content.

        Raises as :meth:`read`.
        """
        url = self._url_of(self.repository, name, revision=self.revision, endpoint=self.endpoint)
        for _ in range(_REDIRECTS):
            with self._answer(url, self._headers, method="HEAD") as (status, headers, _):
                target = urljoin(url, headers.get("location") or "")
                # Elsewhere is the content itself, of which the hub has stated what is to be known.
                if 300 <= status < 400 and urlsplit(target).netloc == urlsplit(url).netloc and target != url:
                    url = target
                    continue
                if status >= 400:
                    raise refusal(self, status, headers, name)
                size = headers.get("x-linked-size") or (headers.get("content-length") if status == 200 else None)
                etag = (headers.get("x-linked-etag") or headers.get("etag") or "").removeprefix("W/").strip('"')
                return int(size) if size and size.isdecimal() else None, etag
        raise self._nonsense()

    @contextlib.contextmanager
    def read(self, name: str, start: int) -> Iterator[Body]:
        """Open a file at the offset ``start``; at 0 if the server does not support ranges.

        Raises:
            TransientError: the failure may be temporary. Also raised in the ``with`` block if the connection breaks.
            ModelError: the file does not exist, or access is denied.
        """
        url = self._url_of(self.repository, name, revision=self.revision, endpoint=self.endpoint)
        headers = {**self._headers, "range": f"bytes={start}-"} if start else self._headers
        with self._answer(url, headers) as (status, answered, blocks):
            yield self._body(name, status, answered, blocks)

    @contextlib.contextmanager
    def _answer(
        self, url: str, headers: Mapping[str, str], *, method: str = "GET"
    ) -> Iterator[tuple[int, Mapping[str, str], Iterable[bytes]]]:
        """Send a request, and yield status, headers and content; with httpx or requests, as huggingface_hub does.

        Redirects are followed, unless only the headers are requested.
        """
        follow, sent = method == "GET", False
        try:
            if callable(self._session.stream):  # httpx, in 1.x and 2.x; in requests it is an attribute
                options = {"headers": headers, "timeout": self._timeout, "follow_redirects": follow}
                with self._session.stream(method, url, **options) as response:
                    sent = True
                    yield response.status_code, response.headers, response.iter_bytes()
            else:  # requests, in 0.x
                options = {"headers": headers, "timeout": self._timeout, "allow_redirects": follow, "stream": True}
                with self._session.request(method, url, **options) as response:
                    sent = True
                    yield response.status_code, response.headers, response.iter_content(BLOCK)
        except (TransientError, Phi3Error):
            raise
        except Exception as error:
            with contextlib.nullcontext() if sent else settings_accepted():
                raise_translated(error, self.endpoint)

    def _body(self, name: str, status: int, headers: Mapping[str, str], blocks: Iterable[bytes]) -> Body:
        if status not in {200, 206}:
            raise refusal(self, status, headers, name)
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("content-range") or "")
        if status == 206 and span:
            return Body(start=int(span[1]), total=int(span[2]), blocks=blocks)
        length = None if headers.get("content-encoding") else headers.get("content-length")
        return Body(start=0, total=int(length) if length else None, blocks=blocks)

    def _nonsense(self) -> ModelError:
        hint = "check HF_ENDPOINT, and whether the network wants you to log in"
        return ModelError(f"{self.endpoint} does not answer as the hub does", hint=hint)


def _offline(repository: str, hint: str) -> ModelError:
    return ModelError(f"{repository} is not complete on this machine, and offline mode is on", hint=hint)

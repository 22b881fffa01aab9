"""What the hub's answers, the network's failures and the user's settings mean, as errors."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import NoReturn, Protocol

from phi3_core.disk import reason
from phi3_core.errors import ModelError, NotOnHubError, Phi3Error

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_SETTINGS = re.compile(r"HF_.*|HUGGING_?FACE_.*|.*_proxy|SSL.*|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE", re.IGNORECASE)
"""Names of the environment variables that huggingface_hub, httpx, requests and ssl read."""
_MOST_SHOWN = 8
_NETWORKING = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}


class TransientError(Exception):
    """A failure that may be temporary. The message has no full stop."""

    def __init__(self, message: str, *, hint: str, after: float | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.after = after
        """Seconds to wait, if the server states them."""


class Asked(Protocol):
    """Who asks the hub for a repository."""

    repository: str
    revision: str | None
    endpoint: str


def refusal(asked: Asked, status: int, headers: Mapping[str, str], name: str | None) -> Exception:
    """Return the error for a response without the content.

    Args:
        asked: what was asked for.
        status: the status of the response.
        headers: the headers of the response.
        name: the file; None for the list of files.
    """
    where, code = asked.repository, headers.get("x-error-code")
    if status in _TRANSIENT:
        hint = "try again later; what has been downloaded is kept"
        if status == 429:
            hint = "try again in some minutes; with HF_TOKEN set, the hub allows more"
        return TransientError(f"the hub answers {status} for {where}", hint=hint, after=_retry_after(headers))
    if status == 401 and (headers.get("x-error-message") or "").startswith("Invalid credentials"):
        message, hint = "the hub does not accept the token", "set HF_TOKEN to a valid one, or unset it"
    elif code == "GatedRepo":
        message = f"{where} requires accepting its licence"
        hint = f"accept it at {asked.endpoint}/{where}, then set HF_TOKEN to a token of that account"
    elif code == "RevisionNotFound":
        message = f"{where} has no revision {asked.revision}"
        hint = "check the revision: a branch, a tag or a commit"
    elif name is not None and (code == "EntryNotFound" or (status == 404 and not code)):
        message, hint = f"{where} has no file {name} at {asked.revision}", f"look at {asked.endpoint}/{where}"
    elif code == "RepoNotFound" or status in {401, 404}:
        message = f"the hub has no repository {where}, or keeps it private"
        hint = "check the name; if it is private, set HF_TOKEN"
    elif status == 403:
        message = f"the hub denies access to {where}"
        hint = "check that the account of HF_TOKEN may read it"
    else:
        message, hint = f"the hub answers {status} for {where}", f"look at {asked.endpoint}/{where}"
    not_there = status in {401, 404} and "token" not in message and code != "GatedRepo"
    return (NotOnHubError if not_there else ModelError)(message, hint=hint)


def raise_translated(error: Exception, endpoint: str) -> NoReturn:
    """Raise a connection failure as :class:`TransientError`, and any other error unchanged."""
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if not isinstance(error, OSError) and not modules & _NETWORKING:
        raise error
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        hint = "set SSL_CERT_FILE and REQUESTS_CA_BUNDLE to the certificates of your network"
        raise ModelError(f"{endpoint} shows a certificate that is not trusted here", hint=hint) from error
    if isinstance(error, ValueError):  # of requests, for an address that cannot be one
        raise error
    hint = "check the network, HF_ENDPOINT and HTTPS_PROXY; an interrupted download will be resumed"
    raise TransientError(f"the connection to {endpoint} failed: {_root_cause(error)}", hint=hint) from error


@contextlib.contextmanager
def settings_accepted() -> Iterator[None]:
    """Convert what the hub's client and its libraries raise for the user's settings: files, proxies, tokens, numbers.

    Raises:
        ModelError: with the variables that are set as the hint.
    """
    try:
        yield
    except (TransientError, Phi3Error):
        raise
    except Exception as error:
        said = sorted(name for name in os.environ if _SETTINGS.fullmatch(name))
        shown = ", ".join(said[:_MOST_SHOWN]) + (" and others" if said[_MOST_SHOWN:] else "")
        words = reason(error) if isinstance(error, OSError) else str(error).splitlines()[0] if str(error) else ""
        raise ModelError(
            f"the hub's client does not accept its settings: {words or type(error).__name__}",
            hint=f"check {shown}" if shown else "check the settings of huggingface_hub",
        ) from error


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait, from the header ``retry-after`` or the hub's ``ratelimit``."""
    given = (headers.get("retry-after") or "").strip()
    if not given:
        limit = re.search(r";\s*t=(\d+)", headers.get("ratelimit") or "")
        given = limit[1] if limit else ""
    return float(given) if given.isdecimal() else None  # not a date: the default pauses are fine then


def _root_cause(error: BaseException) -> str:
    """Return the message of the innermost system error, in lower case."""
    reason = str(error) or type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            reason = cause.strerror
        cause = cause.__cause__ or cause.__context__
    return reason.splitlines()[0].lower()

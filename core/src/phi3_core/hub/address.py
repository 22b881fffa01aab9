"""How users name a repository of the hub, a folder or file of it, and a revision."""

from __future__ import annotations

import contextlib
import os
import re
from urllib.parse import unquote, urlsplit

from attrs import frozen

from phi3_core.errors import ModelError

# OWNER/NAME, with the characters that the hub allows. It has no names with "--", which separates the two in the store.
_REPOSITORY = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][A-Za-z0-9_-]*/[A-Za-z0-9][A-Za-z0-9._-]*(?<![.-])")
_LONGEST_REPOSITORY = 96
_LONGEST_PART = 400
_REVISION = r"(refs/(?:pr|convert)/[^/@]+|[^/@]+)"
# OWNER/NAME@REVISION/FOLDER, as the hub's own file system has it, or OWNER/NAME/FOLDER@REVISION.
_WORD = re.compile(rf"([^/@]+/[^/@]+)(?:@{_REVISION})?(?:/([^@]*))?(?:@(.+))?")
_HOSTS = ("huggingface.co", "hf.co")
_PAGES = ("tree", "blob", "resolve", "raw", "commit")
"""The parts of the hub's URLs that are followed by a revision."""
_OTHER_KINDS = ("datasets", "spaces", "buckets")
_HINT = "a model of the hub is named OWNER/NAME, OWNER/NAME/FOLDER or OWNER/NAME@REVISION"


@frozen(kw_only=True)
class Address:
    """A repository of the hub, at a revision, and what is meant of it."""

    repository: str
    """``OWNER/NAME``."""
    revision: str | None = None
    """A commit, branch or tag; None for the newest commit."""
    path: str = ""
    """A folder or file of the repository; empty for its root."""

    def __str__(self) -> str:
        path = f"/{self.path}" if self.path else ""
        return f"{self.repository}{path}{f'@{self.revision}' if self.revision else ''}"


def parse(word: str) -> Address | None:
    """Return what a user's word names on the hub, or None if it does not have the form of an address.

    Besides ``OWNER/NAME`` with ``/FOLDER`` and ``@REVISION``, these are ``hf://`` and the URLs of the hub's pages.

    Raises:
        ModelError: a URL of another site, or of something that is not a model.
    """
    scheme, separator, rest = word.partition("://")
    if separator and scheme.lower() in {"http", "https"}:
        return _of_url(word)
    if separator and scheme.lower() == "hf":
        _refuse_other_kinds(word, rest)
        return _of_word(rest.removeprefix("models/"))
    if word.lower().startswith(tuple(f"{host}/" for host in _HOSTS)):
        return _of_url(f"https://{word}")
    return _of_word(word)


def _of_word(word: str) -> Address | None:
    found = _WORD.fullmatch(word.rstrip("/"))
    if found is None or (found[2] and found[4]):
        return None
    return _made(found[1], found[2] or found[4], found[3] or "")


def _of_url(url: str) -> Address:
    try:
        split = urlsplit(url)
    except ValueError as error:  # such as one half of the brackets around an IPv6 address
        raise ModelError(f"{url!a} is not an address: {error}", hint=_HINT) from error
    own = ""
    with contextlib.suppress(ValueError):
        own = urlsplit(os.environ.get("HF_ENDPOINT") or "").netloc.lower()
    if split.netloc.lower().removeprefix("www.") not in {*_HOSTS, own}:
        raise ModelError(f"{url!a} is not an address of the hub", hint=_HINT)
    _refuse_other_kinds(url, split.path.lstrip("/"))
    parts = split.path.strip("/").split("/")
    repository, rest, revision = "/".join(parts[:2]), parts[2:], None
    if rest[:1] and rest[0] in _PAGES:
        size = 3 if rest[1:2] == ["refs"] else 1
        revision, rest = unquote("/".join(rest[1 : 1 + size])), rest[1 + size :]
    else:  # such as the page of discussions
        rest = []
    found = _made(repository, revision, unquote("/".join(rest)))
    if found is None:
        raise ModelError(f"{url!a} names no model of the hub", hint=_HINT)
    return found


def _refuse_other_kinds(word: str, path: str) -> None:
    kind = path.partition("/")[0]
    if kind in _OTHER_KINDS:
        raise ModelError(f"{word!a} is one of the hub's {kind}, not a model", hint=_HINT)


def _made(repository: str, revision: str | None, path: str) -> Address | None:
    if not _REPOSITORY.fullmatch(repository) or len(repository) > _LONGEST_REPOSITORY:
        return None
    path = path.rstrip("/")
    revision = unquote(revision) if revision else None
    for text in filter(None, (path, revision)):
        if {"", ".", ".."} & set(text.split("/")) or len(text) > _LONGEST_PART:
            return None
    if not f"{path}{revision or ''}".isprintable() or "\\" in path:
        return None
    return Address(repository=repository, revision=None if revision == "main" else revision, path=path)

"""What a client may have meant by an address that the server does not have."""

from __future__ import annotations

from collections.abc import Collection

_BEGINNING = "v1"


def meant(path: str, known: Collection[str]) -> str | None:
    """Return the known address that is like ``path`` but for its slashes and its beginning; None if there is none.

    Clients append theirs to a base URL that lacks ``/v1``, has it already, or ends with a slash.
    """
    parts = [part for part in path.split("/") if part]
    while parts[:1] == [_BEGINNING]:
        del parts[0]
    ways = ("/".join(["", _BEGINNING, *parts]), "/".join(["", *parts]))
    return next((way for way in ways if way in known and way != path), None)

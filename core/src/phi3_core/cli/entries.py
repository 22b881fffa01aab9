"""Entries of the store, as commands print them."""

from __future__ import annotations

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import Any

    from phi3_core.store.entry import Entry


def date(seconds: float) -> str:
    """Return a time in seconds since the epoch as ISO 8601, in UTC."""
    from datetime import datetime, timezone

    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def describe(entry: Entry) -> dict[str, Any]:
    """Return an entry as ``--json`` prints it."""
    return {
        "model": entry.model,
        "backend": entry.backend,
        "precision": entry.precision,
        "form": "artifact" if entry.backend else "source",
        "bytes": entry.size_bytes,
        "path": entry.path,
        "revision": entry.manifest.get("revision"),
        "used": date(entry.used),
        "quality": entry.manifest.get("quality"),
        "damaged": bool(entry.manifest.get("damaged")),
    }

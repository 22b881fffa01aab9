"""The store's root folder (``PHI3_HOME``, else the platform's cache folder), and JSON files in it."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

LARGEST_JSON = 128 * 2**20
"""Size limit of JSON files in bytes."""


def home() -> Path:
    """Return the store's root folder, which need not exist yet."""
    given = os.environ.get("PHI3_HOME")
    if given:
        return Path(given).expanduser().absolute()
    import platformdirs  # start-up: not needed if PHI3_HOME is set

    return Path(platformdirs.user_cache_dir("phi3", appauthor=False))


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, or None if it is missing, invalid, too large or nested too deeply."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            return None
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically: readers see either the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not made by tempfile, whose files only their owner can read, also after renaming.
    new = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        with new.open("x", encoding="utf-8") as stream:
            json.dump(content, stream, indent=1, ensure_ascii=False)
            stream.write("\n")
        new.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise

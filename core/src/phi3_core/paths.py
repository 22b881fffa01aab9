"""The store's root folder (``PHI3_HOME`` or the setting ``home``, else the platform's cache folder), and JSON files."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from .config.values import find
from .errors import UsageError
from .files import replace_path
from .textfiles import decode_marked
from .user_folders import cache_folder

LARGEST_JSON = 128 * 2**20
"""Size limit of JSON files in bytes."""
_HOME_HINT = "set PHI3_HOME to the path of a folder"
DAMAGED = (LookupError, TypeError, ValueError, AttributeError, OverflowError)
"""What making values of a damaged document raises: its numbers may be no float, and infinities are no int."""


def home() -> Path:
    """Return the store's root folder, which need not exist yet.

    Raises:
        UsageError: ``PHI3_HOME`` is relative to a folder that does not exist: see :func:`absolute`. Or it is not set,
            and the user has no home folder. Or the configuration file cannot be read.
    """
    found = find("home")
    if found.value:
        try:
            return absolute(found.value)
        except UsageError as error:
            raise UsageError(f"PHI3_HOME is {error.message}", hint="set it to the path of a folder") from error
    folder = cache_folder("phi3")
    if folder is None:
        raise UsageError("there is no home folder, in which models would be kept", hint=_HOME_HINT)
    return folder


def absolute(path: str | Path) -> Path:
    """Return the absolute path of a path that a user has given, which may begin with ``~``.

    Raises:
        UsageError: the path is relative to a current folder that has been removed, or to an unknown user's home folder.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise UsageError(f"{str(path)!r}: there is no such home folder", hint="give a path without ~") from error
    except OSError as error:
        message = f"{str(path)!r}: the current folder does not exist any more"
        raise UsageError(message, hint="change to another folder") from error


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, or None if it is missing, invalid, too large or nested too deeply.

    Editors and shells on Windows write UTF-8 with a byte-order mark, or UTF-16.
    """
    try:
        if path.stat().st_size > LARGEST_JSON:
            return None
        return json.loads(decode_marked(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None


def keyed_file(folder: Path, key: str) -> Path:
    """Return the JSON file of a folder for a key of any characters and length."""
    import hashlib  # start-up: OpenSSL, which most commands do not need

    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically: readers see either the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not made by tempfile, whose files only their owner can read, also after renaming.
    new = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        # Names of files that are not UTF-8 have characters that cannot be encoded: they are escaped.
        with new.open("x", encoding="utf-8", newline="\n", errors="backslashreplace") as stream:
            json.dump(content, stream, indent=1, ensure_ascii=False)
            stream.write("\n")
        replace_path(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise

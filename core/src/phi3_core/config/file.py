"""The configuration file: where it is, and what it says. It is read once per process."""

from __future__ import annotations

import functools
import os
import re
import sys
from pathlib import Path

from phi3_core.disk import reason
from phi3_core.errors import UsageError
from phi3_core.textfiles import decode
from phi3_core.user_folders import config_folder

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import Any

VARIABLE = "PHI3_CONFIG"
NONE = "none"
"""The value of :data:`VARIABLE` with which no file is read."""
LARGEST = 2**20
"""Size limit of the file in bytes."""
EDIT_HINT = "phi3 config edit opens it"
_LONGEST_LINE = 60


def location() -> Path | None:
    """Return the absolute path of the configuration file, which need not exist; None if there can be none.

    Raises:
        UsageError: the variable names a path that cannot be one.
    """
    given = os.environ.get(VARIABLE, "")
    if given == NONE:
        return None
    if given:
        return _absolute(given)
    folder = config_folder("phi3")
    return None if folder is None else folder / "config.toml"


@functools.lru_cache(maxsize=4)
def _absolute(given: str) -> Path:
    """Return the path that the variable names, seen from where the process was when it first asked."""
    try:
        return Path(given).expanduser().absolute()
    except (RuntimeError, OSError, ValueError) as error:
        message = f"{VARIABLE} is {given!a}, not the path of a file: {error}"
        raise UsageError(message, hint=f"unset {VARIABLE}") from error


def content() -> dict[str, Any]:
    """Return what the configuration file says, unchecked; nothing if there is none.

    Raises:
        UsageError: the file cannot be read, or is not TOML.
    """
    path = location()
    return {} if path is None else _content(path, VARIABLE in os.environ and bool(os.environ[VARIABLE]))


@functools.lru_cache(maxsize=4)
def _content(path: Path, named: bool) -> dict[str, Any]:
    data = read_bytes(path) if named or _is_reachable(path) else None
    if data is None:
        if named:
            raise UsageError(f"there is no configuration file {path}", hint=f"unset {VARIABLE}, or: phi3 config edit")
        return {}
    return parse(decode(data, describe(path)), path)


def _is_reachable(path: Path) -> bool:
    """Return whether the folders of a path can be entered: a service may have the home folder of another user."""
    try:
        path.lstat()
    except PermissionError:
        return False
    except (OSError, ValueError):
        pass  # reading it says more
    return True


def forget() -> None:
    """Read the file again the next time."""
    _content.cache_clear()
    _absolute.cache_clear()


def describe(path: Path) -> str:
    """Return the file as the subject of an error message."""
    return f"the configuration file {path}"


def read_bytes(path: Path) -> bytes | None:
    """Return the bytes of a configuration file, or None if there is no file.

    Raises:
        UsageError: it is a folder or too large, or cannot be read.
    """
    hint = f"{VARIABLE}=FILE names another one"
    try:
        if path.is_dir():
            raise UsageError(f"{describe(path)} is a folder", hint=hint)
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            raise UsageError(f"{describe(path)} is a link to nothing", hint=hint) from error
        return None
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        words = reason(error) if isinstance(error, OSError) else str(error)
        raise UsageError(f"{describe(path)} cannot be read: {words}", hint=hint) from error
    if len(data) > LARGEST:
        raise UsageError(f"{describe(path)} has more than 1 MB: it is something else", hint=hint)
    return data


def parse(text: str, path: Path) -> dict[str, Any]:
    """Return what a text in TOML says.

    Raises:
        UsageError: it is not TOML. The message has the line.
    """
    if sys.version_info >= (3, 11):
        import tomllib  # start-up: most people have no file
    else:
        import tomli as tomllib  # start-up: most people have no file

    try:
        found: dict[str, Any] = tomllib.loads(text)
    except ValueError as error:
        raise UsageError(f"{describe(path)} is not TOML: {_explain(str(error), text)}", hint=EDIT_HINT) from error
    except RecursionError as error:
        raise UsageError(f"{describe(path)} is nested too deeply", hint=EDIT_HINT) from error
    return found


def _explain(message: str, text: str) -> str:
    """Return a parser's error with the line that it is about, if it names one."""
    lines = text.rstrip().split("\n")
    found = re.search(r"at line (\d+)", message)
    if found is None and "at end of document" not in message:
        return message
    number = min(int(found[1]), len(lines)) if found else len(lines)
    line = lines[number - 1].strip()
    line = line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"
    said = "it was given before" if "overwrite" in message or "twice" in message else message.partition(" (at ")[0]
    return f"line {number}, {line!r}: {said}"

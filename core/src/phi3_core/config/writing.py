"""Change the configuration file: one key at a time, with its comments and its form kept, atomically."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from phi3_core.disk import raise_if_full, reason
from phi3_core.errors import UsageError
from phi3_core.files import replace_path
from phi3_core.textfiles import decode, encoding_of

from . import file, template, values
from .keys import kind_of
from .kinds import TEXTS

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


def change(key: tuple[str, ...], texts: Sequence[str]) -> Path:
    """Set a key, and return the path of the file, which is created if there is none.

    Args:
        key: of :func:`.keys.key_of`.
        texts: the value as text; a list may have several.

    Raises:
        UsageError: the value is wrong, or the file cannot be read or written.
    """
    name, kind = ".".join(key), kind_of(key)
    try:
        if kind is TEXTS:
            value: Any = list(kind.of_file(list(texts)))
        elif len(texts) != 1:
            raise UsageError(f"{name} takes one value", hint=f'phi3 config set {name} "{" ".join(texts)}"')
        else:
            value = kind.of_text(texts[0])
    except (ValueError, OverflowError) as error:
        raise values.wrong(name, " ".join(texts), kind, hint=f"phi3 config set {name} {kind.example}") from error

    def edit(content: Any, new_table: Callable[[str], Any]) -> None:
        for part in key[:-1]:
            if part not in content:
                content[part] = new_table(part)
            content = content[part]
            if not hasattr(content, "items"):
                raise values.wrong_table(part, content)
        content[key[-1]] = value

    return _rewrite(edit)


def remove(text: str) -> Path:
    """Remove a key or a table, also one that is no setting, and return the path of the file.

    Raises:
        UsageError: the file does not have it, or cannot be read or written.
    """
    path = _path()
    content = _parsed(path)[1]
    key = _find(content, text) or _find(content, text.replace("-", "_"))
    if key is None:
        raise UsageError(f"{path} does not set {text}", hint="phi3 config shows where each value comes from")

    def edit(table: Any, _: Callable[[str], Any]) -> None:
        for part in key[:-1]:
            table = table[part]
        del table[key[-1]]

    return _rewrite(edit)


def _find(table: Any, text: str) -> tuple[str, ...] | None:
    """Return the parts of a key that a table has, which may have dots themselves; None if it does not have it."""
    if text in table:
        return (text,)
    for end in (place for place, character in enumerate(text) if character == "."):
        inner = table.get(text[:end])
        if isinstance(inner, dict) and (rest := _find(inner, text[end + 1 :])) is not None:
            return (text[:end], *rest)
    return None


def create(path: Path) -> None:
    """Write all settings, as comments, to a file that does not exist. Raises UsageError if it cannot be written."""
    _write(path, template.text().replace("\n", os.linesep).encode())


def _path() -> Path:
    path = file.location()
    if path is None:
        raise UsageError(f"{file.VARIABLE} is {file.NONE}: there is no file to change", hint=f"unset {file.VARIABLE}")
    return path


def _parsed(path: Path) -> tuple[Any, dict[str, Any], bytes]:
    """Return the document for editing, what it says, and the file's bytes."""
    data = file.read_bytes(path) or b""
    text = decode(data, file.describe(path))
    content = file.parse(text, path)
    try:
        return tomlkit.parse(text), content, data
    except (TOMLKitError, RecursionError) as error:
        raise UsageError(f"{file.describe(path)} is too unusual to be changed: {error}", hint=file.EDIT_HINT) from error


def _rewrite(edit: Callable[[Any, Callable[[str], Any]], None]) -> Path:
    """Change the file, and return its path.

    Args:
        edit: changes a document, and what it says; its second argument makes a table with a name.

    Raises:
        UsageError: the file cannot be read, changed or written.
    """
    path = _path()
    document, content, data = _parsed(path)
    edit(content, lambda _: {})
    try:
        # A table that only holds tables needs no header of its own.
        edit(document, lambda name: tomlkit.table(is_super_table=name == "options"))
        text = tomlkit.dumps(document)
        as_expected = file.parse(text, path) == content
    except (TOMLKitError, UsageError, TypeError, ValueError, KeyError):
        as_expected = False
    if not as_expected:
        raise UsageError(f"{file.describe(path)} is too unusual to be changed", hint=file.EDIT_HINT)
    encoding, mark = encoding_of(data)
    if "\r\n" in data[mark:].decode(encoding) or (not data and os.name == "nt"):
        text = text.replace("\n", "\r\n")
    _write(path, data[:mark] + text.encode(encoding))
    file.forget()
    return path


def _write(path: Path, data: bytes) -> None:
    """Write a file atomically. A link stays one, and the file keeps its permissions."""
    new: Path | None = None
    try:
        target = path.resolve() if path.is_symlink() else path
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f".{target.name}.{os.urandom(6).hex()}")
        with new.open("xb") as stream:
            stream.write(data)
        if target.exists():
            shutil.copymode(target, new)
        replace_path(new, target)
    except OSError as error:
        if new is not None:
            with contextlib.suppress(OSError):
                new.unlink()
        hint = f"{file.VARIABLE}=FILE names another one"
        raise_if_full(error, path, hint=hint)
        raise UsageError(f"{file.describe(path)} cannot be written: {reason(error)}", hint=hint) from error

"""The value that a setting has, and where it comes from: the environment, the configuration file, or the default."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from phi3_core.errors import UsageError
from phi3_core.options import closest

from . import file
from .kinds import ENGINE_OPTION, MODEL, Kind
from .kinds import Model as ModelKind
from .kinds import Path as PathKind
from .table import BY_KEY, BY_VARIABLE, FREE_TABLES, PRIVATE, SETTINGS, Setting, shown

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_LONGEST_SAID = 60
"""Characters of a wrong value that are shown."""
_TABLES = (*FREE_TABLES, *{key.partition(".")[0] for key in BY_KEY if "." in key})


class Found(NamedTuple):
    """The value of a setting."""

    setting: Setting
    value: Any
    source: str
    """``variable``, ``file`` or ``default``."""
    where: str = ""
    """The variable, or the path of the file."""


def find(name: str) -> Found:
    """Return the value of a setting.

    Args:
        name: its key in the file, or its variable if the file cannot have it.

    Raises:
        UsageError: the value is wrong, or the file cannot be read.
    """
    setting = BY_KEY.get(name) or BY_VARIABLE[name]
    if text := os.environ.get(setting.variable, ""):
        return Found(setting, _of_variable(setting, text), "variable", setting.variable)
    if setting.key:
        *tables, key = setting.key.split(".")
        table: Any = file.content()
        for part in tables:
            table = table.get(part, {})
            if not isinstance(table, dict):
                raise wrong_table(part, table)
        if key in table:
            return Found(setting, of_file(setting.key, setting.kind, table[key]), "file", str(file.location()))
    return Found(setting, setting.default, "default")


def value(name: str) -> Any:
    """Return the value of a setting. Takes the arguments of :func:`find`, and raises as it does."""
    return find(name).value


def aliases() -> dict[str, str]:
    """Return the models that the file's ``[aliases]`` name. Raises as :func:`find`."""
    return {name: of_file(f"aliases.{name}", MODEL, given) for name, given in _table("aliases").items()}


def engine_options() -> dict[str, dict[str, str]]:
    """Return the options that the file's ``[options.BACKEND]`` give each engine. Raises as :func:`find`."""
    found: dict[str, dict[str, str]] = {}
    for backend, options in _table("options").items():
        if not isinstance(options, dict):
            hint = f"phi3 config set options.BACKEND.{_word(backend)} VALUE, where BACKEND is one of phi3 plugins"
            raise UsageError(f"{_named(f'options.{backend}')} belongs to no backend", hint=hint)
        found[backend] = {
            name: of_file(f"options.{backend}.{name}", ENGINE_OPTION, given) for name, given in options.items()
        }
    return found


def check() -> None:
    """Check the whole file.

    Raises:
        UsageError: a key is unknown or has a wrong value.
    """
    for key, given in _flat(file.content(), ""):
        if key in BY_KEY:
            of_file(key, BY_KEY[key].kind, given)
        elif given != {}:  # a table without keys says nothing
            raise _unknown(key)
    aliases()
    engine_options()


def _flat(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the keys with their tables, apart from those of tables that are the user's own, and the values."""
    for name, given in table.items():
        key = f"{prefix}{name}"
        if key in FREE_TABLES:
            continue
        if any(each.startswith(f"{key}.") for each in BY_KEY):
            if not isinstance(given, dict):
                raise wrong_table(key, given)
            yield from _flat(given, f"{key}.")
        elif isinstance(given, dict) and given and key not in BY_KEY:
            yield f"{key}.{next(iter(given))}", None
        else:
            yield key, given


def _table(name: str) -> dict[str, Any]:
    given = file.content().get(name, {})
    if not isinstance(given, dict):
        raise wrong_table(name, given)
    return given


def of_file(key: str, kind: Kind, given: Any) -> Any:
    """Return a value of the file; a relative path becomes that of the file's folder.

    Raises:
        UsageError: it is none of this kind.
    """
    try:
        found = kind.of_file(given)
        return _absolute(found, kind) if isinstance(kind, PathKind) else found
    except RuntimeError as error:  # an unknown user's home folder
        raise UsageError(f"{_named(key)} is {_said(given)}: {error}", hint=f"phi3 config set {key} PATH") from error
    except (ValueError, OverflowError) as error:
        raise wrong(_named(key), given, kind, hint=_set_hint(key)) from error


def _absolute(given: str, kind: Kind) -> str:
    """Return a path that is not relative to the current folder."""
    if isinstance(kind, ModelKind) and not is_path(given):
        return given
    folder = file.location()
    path = Path(given).expanduser()
    return str(path if folder is None else folder.parent / path)


def is_path(model: str) -> bool:
    """Return whether the name of a model is spelled as a path: it begins with a dot, ``~``, a slash or a drive."""
    return model.startswith((".", "~", "/", "\\")) or Path(model).is_absolute()


def _of_variable(setting: Setting, text: str) -> Any:
    try:
        return setting.kind.of_text(text)
    except (ValueError, OverflowError) as error:
        variable = setting.variable
        raise wrong(variable, text, setting.kind, hint=f"unset {variable}") from error


def wrong(what: str, given: object, kind: Kind, *, hint: str) -> UsageError:
    """Return the error for a value that is none of its kind."""
    return UsageError(f"{what} is {_said(given)}, not {kind.words}", hint=hint)


def _said(given: object) -> str:
    """Return a value for an error message, which is one line."""
    text = "a table" if isinstance(given, dict) else ascii(given)
    return text if len(text) <= _LONGEST_SAID else f"{text[:_LONGEST_SAID]}…"


def _word(key: str) -> str:
    """Return a key as it is written in a command."""
    return key if key.isprintable() and not set(key) & set(" \"'") else ascii(key)


def _set_hint(key: str) -> str:
    setting = BY_KEY.get(key)
    if setting is None:
        return f"phi3 config unset {_word(key)}"
    default = setting.default
    return f"phi3 config set {key} {setting.kind.example if default in (None, False, 0) else default}"


def _named(key: str) -> str:
    return f"{_word(key)} in {file.location()}"


def wrong_table(name: str, given: object) -> UsageError:
    """Return the error for something else where a table belongs."""
    return UsageError(f"{_named(name)} is {_said(given)}, not a table", hint=f"phi3 config unset {name}")


def _unknown(key: str) -> UsageError:
    hint = f"phi3 config unset {_word(key)} removes it"
    meant = nearest(key)
    return UsageError(f"{_named(key)} is no setting", hint=f"did you mean {meant}? {hint}" if meant else hint)


def nearest(key: str) -> str | None:
    """Return the setting or table that a wrong key may stand for, or None if it is like none."""
    plain = key.replace("-", "_")
    first, dot, rest = plain.partition(".")
    if plain in BY_KEY:
        return plain
    if dot and first not in _TABLES and (table := closest(first, _TABLES)):
        return table if table in FREE_TABLES else nearest(f"{table}.{rest}")
    # A key below the header of a table belongs to the table, which is easily forgotten: the last part says most.
    by_last = {each.rpartition(".")[2]: each for each in BY_KEY}
    last = plain.rpartition(".")[2]
    meant = last if last in by_last else closest(last, by_last)
    return by_last[meant] if meant else closest(plain, [*BY_KEY, *FREE_TABLES])


def unknown_variables() -> dict[str, str | None]:
    """Return the variables that begin with ``PHI3_`` and are no settings, with those that may be meant."""
    names = (name for name in os.environ if name.startswith("PHI3_") and name not in BY_VARIABLE)
    return {name: closest(name, BY_VARIABLE) for name in sorted(names)}


def reported() -> dict[str, str]:
    """Return what the environment and the file set, for a report: without what is of the user's own words."""
    found = {name: text for name, text in sorted(os.environ.items()) if name.startswith("PHI3_")}
    for setting in SETTINGS:
        now = find(setting.name)
        if now.source == "file":
            found[setting.key] = shown(now.value)
        if setting.key in PRIVATE and now.source != "default":
            found[setting.variable if now.source == "variable" else setting.key] = "(set)"
    for backend, options in engine_options().items():
        found |= {f"options.{backend}.{name}": given for name, given in options.items()}
    return found


def for_workers() -> dict[str, str]:
    """Return the variables with which a worker process has this process's settings, and does not read the file."""
    found = {file.VARIABLE: file.NONE}
    for setting in BY_KEY.values():
        if not setting.commands_only and setting.key != "home" and (now := find(setting.key)).source == "file":
            found[setting.variable] = str(int(now.value)) if isinstance(now.value, bool) else str(now.value)
    return found

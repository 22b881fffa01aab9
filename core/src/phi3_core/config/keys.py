"""Keys of the configuration, as users write them in commands."""

from __future__ import annotations

from phi3_core.errors import UsageError

from . import values
from .kinds import ENGINE_OPTION, MODEL, Kind
from .table import BY_KEY


def key_of(text: str) -> tuple[str, ...]:
    """Return the parts of a key as a user writes it; ``-`` stands for ``_`` as in flags.

    Raises:
        UsageError: there is no such setting.
    """
    plain = text.replace("-", "_")
    if plain in BY_KEY:
        return tuple(plain.split("."))
    table, _, rest = text.partition(".")
    if table == "aliases" and rest:
        return table, rest
    backend, _, option = rest.partition(".")
    if table == "options" and backend and option:
        return table, backend, option
    if table in {"aliases", "options"}:
        form = "aliases.NAME" if table == "aliases" else "options.BACKEND.KEY"
        raise UsageError(f"{text!r} is no setting", hint=f"it is written {form}")
    meant = values.nearest(text)
    hint = f"did you mean {meant}? phi3 config shows all" if meant else "phi3 config shows all"
    raise UsageError(f"there is no setting {text!r}", hint=hint)


def kind_of(key: tuple[str, ...]) -> Kind:
    """Return what the value of a key may be."""
    if key[0] == "aliases":
        return MODEL
    return ENGINE_OPTION if key[0] == "options" else BY_KEY[".".join(key)].kind

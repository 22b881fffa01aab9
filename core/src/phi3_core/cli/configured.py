"""Flags that were not given: their values come from the environment, the configuration file, or the defaults."""

from __future__ import annotations

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from phi3_core.config.values import Found
    from phi3_core.errors import Phi3Error


def mark(container: Any, *keys: str) -> None:
    """Let :func:`fill` set these flags, which a parser or a group of one has; their default is None."""
    container.set_defaults(configured=(*(container.get_default("configured") or ()), *keys))


def fill(given: argparse.Namespace) -> None:
    """Check the configuration file, and set the flags that were not given.

    Raises:
        UsageError: the file, or a variable that is needed, is wrong.
    """
    from phi3_core.config import values
    from phi3_core.models import aliases

    values.check()
    aliases.check(values.aliases())
    given.found = {}
    for key in getattr(given, "configured", ()):
        if getattr(given, key) is None:
            given.found[key] = found = values.find(key)
            setattr(given, key, found.value)


def explain(error: Phi3Error, given: argparse.Namespace) -> None:
    """Add to an error's hint where a value that it is about comes from, if no flag has given it."""
    from phi3_core.config import values
    from phi3_core.config.file import location
    from phi3_core.config.table import shown

    said = str(error)
    told = [
        f"{key} = {shown(found.value)} comes from {found.where}"
        for key, found in getattr(given, "found", {}).items()
        if found.source != "default" and _speaks_of(said, found)
    ]
    if hasattr(given, "option"):  # an engine was loaded with the file's options
        told += [
            f"{name} is set in {location()}"
            for options in values.engine_options().values()
            for name in options
            if _has_word(said, name) and name not in dict(given.option)
        ]
    if told:
        error.hint = "; ".join(filter(None, [error.hint, *told]))


def _speaks_of(said: str, found: Found) -> bool:
    """Return whether an error is about a setting: it has its flag, its value, or its key if that is no plain word."""
    key, value = found.setting.key, found.value
    names = [f"--{key.replace('_', '-')}", key if "_" in key else "", value if isinstance(value, str) else ""]
    return any(_has_word(said, word) for word in names if word)


def _has_word(said: str, word: str) -> bool:
    import re

    return re.search(rf"(?<![\w.]){re.escape(word)}(?!\w)", said) is not None

"""The user's own names for models: ``[aliases]`` of the configuration file."""

from __future__ import annotations

import re

from phi3_core import names
from phi3_core.config import file, values
from phi3_core.errors import UsageError

from .catalogue import CATALOGUE

_ALIAS = re.compile(r"\w[\w.-]*")


def problem(alias: str) -> str:
    """Return why a name cannot be an alias; empty if it can."""
    known = next((name for name in CATALOGUE if names.key(name) == names.key(alias)), None)
    if known is not None:
        return f"{known} is the name of a model already"
    return "" if _ALIAS.fullmatch(alias) else "an alias has letters, digits, dots, dashes and underscores only"


def check(aliases: dict[str, str]) -> None:
    """Check the names of all aliases, and that each ends at a model.

    Raises:
        UsageError: a name cannot be an alias, or aliases form a circle.
    """
    for alias in aliases:
        if why := problem(alias):
            message = f"aliases.{alias} in {file.location()} cannot be an alias: {why}"
            raise UsageError(message, hint=f"phi3 config unset aliases.{alias}")
        _follow(alias, aliases)


def expand(word: str) -> str:
    """Return the model that a word stands for if it is an alias, else the word itself.

    Raises:
        UsageError: the aliases form a circle, or the configuration file cannot be read.
    """
    return word if word in CATALOGUE else _follow(word, values.aliases())


def _follow(word: str, aliases: dict[str, str]) -> str:
    passed: list[str] = []
    while word in aliases and word not in CATALOGUE:
        if word in passed:
            circle = " -> ".join([*passed, word])
            raise UsageError(f"the aliases form a circle: {circle}", hint=f"phi3 config unset aliases.{word}")
        passed.append(word)
        word = aliases[word]
    return word

"""Validators and converters of the fields of values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
from attrs import validators


def one_of(*allowed: str) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    """Return the validator of a field that holds one of these words."""
    return validators.and_(validators.instance_of(str), validators.in_(allowed))


def strings(given: Any) -> tuple[str, ...]:
    """Return strings as a tuple. A single string raises ``TypeError``: its characters are not meant."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"expected a sequence of strings, got {given!r}")
    return tuple(given)


def mapping(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a mapping."""
    return dict(given)


def ids(given: Any) -> tuple[int, ...]:
    """Return token ids of any integer type, such as numpy's, as a tuple of ``int``."""
    return tuple(int(item) for item in given)


def values_of(kind: type[Any], given: Iterable[Any]) -> tuple[Any, ...]:
    """Return ``given`` as values of one class, for attrs converters. A mapping is taken as the fields of a value."""
    return tuple(kind(**item) if isinstance(item, Mapping) else item for item in given)


TEXT = validators.and_(validators.instance_of(str), validators.min_len(1))
"""A string that is not empty."""
OPTIONAL_TEXT = validators.optional(validators.instance_of(str))
COUNT = validators.and_(validators.instance_of(int), validators.ge(0))
"""A whole number from 0."""
OPTIONAL_COUNT = validators.optional(COUNT)
TRUTH = validators.instance_of(bool)

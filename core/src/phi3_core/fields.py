"""Validators and converters of the fields of values.

A validator raises one sentence, which names the class and the field: authors of plugins read it. Those of attrs append
the declaration of the field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from .wording import alternatives, described, shortened

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]
"""Checks a field of a value that is being made: called with the value, the field and what was given."""


def must_be(words: str, kind: type | tuple[type, ...], accepts: Callable[[Any], object] | None = None) -> Validator:
    """Return the validator of a field.

    It raises ``TypeError`` for another type and ``ValueError`` for another value.

    Args:
        words: what the field must be, as in a sentence.
        kind: its type.
        accepts: returns whether a value of this type is valid; None if all are.
    """

    def check(made: Any, attribute: attrs.Attribute[Any], given: Any) -> None:
        if not isinstance(given, kind):
            raise TypeError(f"{type(made).__name__}: {attribute.name} must be {words}, not {described(given)}")
        if accepts is not None and not accepts(given):
            raise ValueError(f"{type(made).__name__}: {attribute.name} must be {words}, not {shortened(given)}")

    return check


def one_of(*allowed: str) -> Validator:
    """Return the validator of a field that holds one of these words."""
    return must_be(alternatives(allowed), str, allowed.__contains__)


def some_of(*allowed: str) -> Validator:
    """Return the validator of a field that holds one or more of these words."""
    some = must_be(f"a sequence of {alternatives(allowed)}", tuple, bool)
    one = one_of(*allowed)

    def check(made: Any, attribute: attrs.Attribute[Any], given: Any) -> None:
        some(made, attribute, given)
        for item in given:
            one(made, attribute, item)

    return check


def strings(given: Any) -> Any:
    """Return strings as a tuple. A single string, whose characters are not meant, is left to the validator."""
    return given if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)


def mapping(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a mapping."""
    return dict(given)


def ids(given: Any) -> tuple[int, ...]:
    """Return token ids of any integer type, such as numpy's, as a tuple of ``int``."""
    return tuple(int(item) for item in given)


def values_of(kind: type[Any], given: Iterable[Any]) -> tuple[Any, ...]:
    """Return ``given`` as values of one class, for attrs converters. A mapping is taken as the fields of a value."""
    return tuple(kind(**item) if isinstance(item, Mapping) else item for item in given)


_NONE = type(None)
STRING = must_be("a string", str)
OPTIONAL_STRING = must_be("a string or None", (str, _NONE))
TEXT = must_be("a string that is not empty", str, bool)
COUNT = must_be("an integer from 0", int, lambda given: given >= 0)
OPTIONAL_COUNT = must_be("an integer from 0, or None", (int, _NONE), lambda given: given is None or given >= 0)
TRUTH = must_be("True or False", bool)
OPTIONAL_TRUTH = must_be("True, False or None", (bool, _NONE))

"""Bounds of JSON schemas, so that an engine compiles any of them in bounded time and memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from phi3_core.errors import UsageError

MAX_DEPTH = 32
"""Lists and objects inside each other."""
MAX_NODES = 4096
"""Values in a schema, those in lists and objects included."""
MAX_TEXT = 65_536
"""Characters of all keys and strings of a schema."""
MAX_PATTERN = 256
"""Characters of a regular expression."""
MAX_PATTERNS = 32
"""Regular expressions in a schema; one if it combines schemas, because engines intersect them."""
MAX_CHOICES = 256
"""Properties of an object, and schemas in a list of them. Engines keep track of all that may come next."""
MAX_REPEATS = 1000
"""How often a regular expression may repeat something, and the largest ``minLength`` and the like."""
NAMED_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose value has schemas by names, which may look like keywords."""
DATA = frozenset({"const", "enum", "default", "examples"})
"""Keywords whose value is data, which may look like a schema."""
_COUNTS = frozenset({"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"})
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_INNER = frozenset({"items", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else"})
_CHOICES = _LISTS | {"properties", "patternProperties", "required"}
_TYPES = frozenset({"string", "number", "integer", "object", "array", "boolean", "null"})
_COMBINED = frozenset({"$ref", "anyOf", "oneOf", "not", "if", "pattern"})
"""Keywords that each say something of the same text, so that two of them are combined as by ``allOf``."""
_REFERENCES = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
_REPEAT = re.compile(r"\{\s*(\d*)\s*(?:,\s*(\d*)\s*)?\}")
_DIGITS = 9


def _is_schema(value: Any) -> bool:
    return isinstance(value, (bool, Mapping))


def _are_named(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_schema, value.values()))


def _are_schemas(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_schema, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_types(value: Any) -> bool:
    kinds = value if isinstance(value, list) else [value]
    return bool(kinds) and all(isinstance(kind, str) and kind in _TYPES for kind in kinds)


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


_FORMS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(NAMED_SCHEMAS, _are_named),
    **dict.fromkeys(_LISTS, _are_schemas),
    **dict.fromkeys(_INNER, _is_schema),
    **dict.fromkeys(_REFERENCES | {"pattern"}, _is_text),
    **dict.fromkeys(_COUNTS, _is_count),
    "required": _are_texts,
    "type": _are_types,
}
"""Whether a keyword's value is of its kind. Engines differ in what they make of others."""


def check_schema(schema: Any, name: str) -> None:
    """Check the size of a schema, and that it refers to nothing outside of itself.

    Args:
        schema: the schema, as JSON was read.
        name: what it is, for error messages.

    Raises:
        UsageError: it is no object, too large, or refers to something else.
    """
    if not isinstance(schema, Mapping):
        raise UsageError(f"{name} is not a JSON schema", hint="a schema is a JSON object")
    size = 0
    for nodes, (depth, keyword, value, _) in enumerate(_walk(schema), 1):
        size += len(keyword) + (len(value) if isinstance(value, str) else 0)
        if isinstance(value, Mapping):
            size += sum(map(len, value))
        if depth > MAX_DEPTH or nodes > MAX_NODES or size > MAX_TEXT:
            raise UsageError(
                f"{name} is too large",
                hint=f"a schema has at most {MAX_NODES:,} values, {MAX_DEPTH} of them inside each other, "
                f"and {MAX_TEXT:,} characters",
            )
        _check_keyword(keyword, value, name)
        if keyword in _REFERENCES:
            _check_reference(keyword, value, schema, name)
    _check_patterns(schema, name)


def _check_patterns(schema: Mapping[str, Any], name: str) -> None:
    """Refuse many regular expressions, and several where a text may have to follow more than one of them."""
    count, intersects = 0, False
    for _, keyword, value, is_schema in _walk(schema):
        if keyword == "pattern":
            count += 1
        elif keyword == "patternProperties" and isinstance(value, Mapping):
            count += len(value)
        if is_schema and isinstance(value, Mapping):
            intersects = intersects or "allOf" in value or len(_COMBINED.intersection(value)) > 1
    if count > (1 if intersects else MAX_PATTERNS):
        raise UsageError(
            f"{name} has too many regular expressions",
            hint=f"at most {MAX_PATTERNS} are allowed, and one if schemas are combined, as by allOf",
        )


def _check_keyword(keyword: str, value: Any, name: str) -> None:
    if keyword in _FORMS and not _FORMS[keyword](value):
        raise UsageError(f"{name} is not a JSON schema: its {keyword} is malformed", hint="see https://json-schema.org")
    if keyword in _CHOICES and len(value) > MAX_CHOICES:
        raise UsageError(f"{name} has {len(value)} {keyword}", hint=f"at most {MAX_CHOICES} are allowed")
    if keyword == "pattern":
        _check_pattern(value, name)
    elif keyword == "patternProperties":
        for pattern in value:
            _check_pattern(pattern, name)
    elif keyword in _COUNTS and value > MAX_REPEATS:
        raise UsageError(f"{name} has {keyword} {value:.15g}", hint=f"at most {MAX_REPEATS} is allowed")


def _check_reference(keyword: str, reference: str, schema: Mapping[str, Any], name: str) -> None:
    """Refuse a reference that leads out of the schema, or nowhere."""
    found: Any = schema
    for part in reference.split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdecimal() and len(key) <= _DIGITS and int(key) < len(found):
            found = found[int(key)]
        else:
            found = found.get(key) if isinstance(found, Mapping) else None
    if keyword != "$ref" or not re.fullmatch(r"#(/.*)?", reference, re.DOTALL) or not _is_schema(found):
        raise UsageError(
            f"{name} refers to {reference[:80]!r}", hint="references lead to schemas in the same schema: #/$defs/NAME"
        )


def _check_pattern(pattern: str, name: str) -> None:
    """Refuse an expression that may have a large automaton: engines unroll what it repeats, also inside each other."""
    product = 1
    for numbers in _REPEAT.findall(pattern[: MAX_PATTERN + 1]):
        product *= max((int(number[:_DIGITS]) for number in numbers if number), default=1) or 1
    if len(pattern) > MAX_PATTERN or product > MAX_REPEATS:
        raise UsageError(
            f"{name} has a regular expression that is too large",
            hint=f"it has at most {MAX_PATTERN} characters, and repeats at most {MAX_REPEATS} times",
        )


def _walk(schema: Mapping[str, Any]) -> Iterator[tuple[int, str, Any, bool]]:
    """Yield the depth, the keyword and the value of everything in a schema, and whether the value is a schema or data.

    The keyword is empty where there is none: for items of lists, named schemas and data.
    """
    pending: list[tuple[int, str, Any, bool]] = [(0, "", schema, True)]
    while pending:
        depth, keyword, value, is_schema = pending.pop()
        named = is_schema and keyword in NAMED_SCHEMAS
        yield depth, keyword, value, is_schema and not named
        if isinstance(value, Mapping):
            for key, item in value.items():
                is_keyword = is_schema and not named
                inner = is_schema and not (is_keyword and key in DATA)
                pending.append((depth + 1, key if is_keyword else "", item, inner))
        elif isinstance(value, list):
            pending += [(depth + 1, "", item, is_schema) for item in value]

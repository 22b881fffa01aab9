from __future__ import annotations

import time

import pytest
from phi3_core.errors import UsageError
from phi3_core.server.schemas import MAX_DEPTH, MAX_NODES, MAX_PATTERN, MAX_TEXT, check_schema


def nested(depth):
    schema: dict = {"type": "string"}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


ALLOWED = [
    {},
    nested(MAX_DEPTH - 1),
    {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string", "pattern": "^[a-z]{1,64}$"}}},
    {"properties": {"pattern": {"type": "string"}, "$ref": {"type": "string"}, "maxLength": {"type": "integer"}}},
    {"properties": {"a": {"$ref": "#"}}},
    {"enum": ["x" * 1000] * 60},
    {"anyOf": [{"type": "string", "pattern": f"^{number}$"} for number in range(32)]},
    {"properties": {"allOf": {"pattern": "a"}, "anyOf": {"pattern": "b"}, "$ref": {}}},
    {"items": {"$ref": "#/$defs/a", "description": "A"}, "$defs": {"a": {"pattern": "a"}, "b": {"pattern": "b"}}},
    {"allOf": [{"type": "string", "pattern": "a"}, {"type": "string", "maxLength": 4}]},
    {"properties": {f"p{number}": {"type": "string"} for number in range(256)}},
    {"maxItems": 1000, "pattern": "a{2,10}b{100}"},
    {"$ref": "#/$defs/a~1b/anyOf/1", "$defs": {"a/b": {"anyOf": [True, {"type": ["string", "null"]}]}}},
    {"items": {"properties": {"type": {"type": "string"}, "properties": True, "anyOf": {"enum": []}}}},
    {"const": {"$ref": "elsewhere", "pattern": "(" * 1000}},
]
REFUSED = [
    ([], "not a JSON schema"),
    ("{}", "not a JSON schema"),
    (nested(MAX_DEPTH + 1), "too large"),
    (nested(100_000), "too large"),
    ({"enum": list(range(MAX_NODES))}, "too large"),
    ({"description": "x" * MAX_TEXT}, "too large"),
    ({"pattern": "a" * (MAX_PATTERN + 1)}, "regular expression"),
    ({"items": {"pattern": "(a{100}){100}"}}, "regular expression"),
    ({"pattern": "a{1,99999999999999999999999999}"}, "regular expression"),
    ({"pattern": "a{ 1001 }"}, "regular expression"),
    ({"patternProperties": {"a{1001}": {}}}, "regular expression"),
    ({"patternProperties": {f"a{number}": {} for number in range(33)}}, "too many regular expressions"),
    ({"anyOf": [{"items": {"pattern": "a"}} for _ in range(33)]}, "too many regular expressions"),
    ({"items": {"allOf": [{"pattern": "a"}, {"anyOf": [{"pattern": "b"}]}]}}, "too many regular expressions"),
    ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"pattern": "a"}, "b": {"pattern": "b"}}}, "too many regular"),
    ({"$ref": "#/$defs/a", "pattern": "a", "$defs": {"a": {"pattern": "b"}}}, "too many regular expressions"),
    ({"items": {"pattern": "a", "anyOf": [{"pattern": "b"}]}}, "too many regular expressions"),
    ({"properties": {f"p{number}": {} for number in range(257)}}, "257 properties"),
    ({"anyOf": [{"const": number} for number in range(300)]}, "300 anyOf"),
    ({"$ref": "https://example.com/schema"}, "refers to"),
    ({"$ref": "other.json#/a"}, "refers to"),
    ({"$ref": "#name"}, "refers to"),
    ({"$ref": "#/$defs/none"}, "refers to"),
    ({"$ref": "#/$defs/a/type", "$defs": {"a": {"type": "string"}}}, "refers to"),
    ({"$ref": 1}, "its .ref is malformed"),
    ({"$defs": []}, "its .defs is malformed"),
    ({"properties": {"a": "string"}}, "its properties is malformed"),
    ({"anyOf": []}, "its anyOf is malformed"),
    ({"anyOf": {"type": "string"}}, "its anyOf is malformed"),
    ({"items": 1}, "its items is malformed"),
    ({"type": "text"}, "its type is malformed"),
    ({"type": {"type": "string"}}, "its type is malformed"),
    ({"pattern": ["a"]}, "its pattern is malformed"),
    ({"minLength": "1"}, "its minLength is malformed"),
    ({"maxItems": True}, "its maxItems is malformed"),
    ({"required": "a"}, "its required is malformed"),
    ({"items": {"$dynamicRef": "#a"}}, "refers to"),
    ({"maxItems": 1001}, "maxItems"),
    ({"items": {"minLength": 1e9}}, "minLength"),
]


@pytest.mark.parametrize("schema", ALLOWED, ids=range(len(ALLOWED)))
def test_schemas_of_a_size_that_is_allowed(schema):
    check_schema(schema, "the schema")


@pytest.mark.parametrize(("schema", "words"), REFUSED, ids=range(len(REFUSED)))
def test_schemas_that_are_refused(schema, words):
    started = time.thread_time()
    with pytest.raises(UsageError, match=words) as caught:
        check_schema(schema, "the schema")
    assert caught.value.hint
    assert time.thread_time() - started < 1

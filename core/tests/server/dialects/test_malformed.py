"""Requests in which one value is of another kind end in an answer, or in an error of the client."""

from __future__ import annotations

import copy
import http.client
import itertools
import json
from typing import Any

import pytest

SCHEMA = {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"type": "string"}}}
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    1.5,
    2**70,
    "",
    "\ud83d",
    "<|end|>",
    [],
    {},
    [[]],
    [None],
    {"type": "x"},
    {"$ref": "#/x"},
)
BODIES: dict[str, Any] = {
    "/v1/responses": {
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "a"}]},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": SCHEMA}],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
        "reasoning": {"effort": None},
        "max_output_tokens": 5,
        "temperature": 0.5,
        "stream": False,
    },
    "/v1/messages": {
        "system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "a"}]},
        ],
        "tools": [{"name": "f", "input_schema": SCHEMA}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": False},
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        "stop_sequences": ["x"],
        "max_tokens": 5,
        "top_k": 3,
        "stream": False,
    },
}


def places(value, here=()):
    """Yield the place of everything in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*here, key)
        yield from places(item, (*here, key))


@pytest.mark.parametrize("path", BODIES)
def test_a_value_of_another_kind(address, script, path):
    host = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
    values = itertools.cycle(VALUES)
    statuses = set()
    for place in places(BODIES[path]):
        for value in itertools.islice(values, 5):  # in turn, so that places get different ones
            body = copy.deepcopy(BODIES[path])
            part = body
            for key in place[:-1]:
                part = part[key]
            part[place[-1]] = value
            data = json.dumps({"model": "m", **body})
            host.request("POST", path, data, {"content-type": "application/json"})
            response = host.getresponse()
            text = response.read()
            assert response.status in {200, 400}, (data, text)
            statuses.add(response.status)
    host.close()
    assert statuses == {200, 400}

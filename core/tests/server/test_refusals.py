"""What is refused is refused by name, in the form that clients parse, and never breaks the server."""

from __future__ import annotations

import json
import random

import pytest
from fastapi.exceptions import RequestValidationError
from phi3_core.server.errors import api_error
from phi3_core.server.requests import Request, invalid
from pydantic import ValidationError, model_validator
from serving_toy import chat

SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}


def nested(levels):
    schema: dict[str, object] = {}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}


UNSUPPORTED = [
    ("frequency_penalty", 0.5),
    ("presence_penalty", -1),
    ("logit_bias", {"5": 10}),
    ("logprobs", True),
    ("store", True),
    ("service_tier", "flex"),
    ("modalities", ["text", "audio"]),
    ("audio", {"voice": "a", "format": "mp3"}),
    ("prediction", {"type": "content", "content": "a"}),
    ("reasoning_effort", "high"),
    ("verbosity", "low"),
    ("web_search_options", {}),
    ("functions", [{"name": "a"}]),
    ("function_call", "auto"),
    ("best_of", 2),
    ("min_p", 0.1),
    ("stream_options.include_obfuscation", True),
]
INVALID = [
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("temperature", "0.5"),
    ("temperature", True),
    ("top_p", 1.5),
    ("top_k", -1),
    ("repetition_penalty", 0),
    ("n", 0),
    ("n", 9),
    ("max_tokens", 0),
    ("max_tokens", 2.5),
    ("seed", 2**64),
    ("seed", "7"),
    ("stop", ["a"] * 17),
    ("stop", ""),
    ("stop", "a" * 257),
    ("stream", "yes"),
    ("messages", []),
    ("messages", "Hello"),
    ("response_format", {"type": "json_schema"}),
    ("response_format", {**SCHEMA, "type": "text"}),
    ("response_format", nested(40)),
    ("response_format", {"type": "json_schema", "json_schema": {"name": "a", "schema": {"title": "a" * 70000}}}),
    ("top_logprobs", 2),
    ("tool_choice", "required"),
    ("tool_choice", {"type": "function", "function": {"name": "a"}}),
    ("tools", [{"type": "function", "function": {"name": "a b"}}]),
    ("max_completion_tokens", 2),
    ("model", 5),
]


@pytest.mark.parametrize(("name", "value"), UNSUPPORTED)
def test_what_is_not_supported_is_refused_by_name(server, name, value):
    outer, _, inner = name.partition(".")
    status, answer = server.chat(**{outer: {inner: value} if inner else value})
    assert status == 400
    assert answer["error"]["code"] == "unsupported_parameter"
    assert answer["error"]["param"] == name
    assert answer["error"]["message"].startswith(repr(name))
    assert answer["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(("name", "value"), INVALID)
def test_what_makes_no_sense_is_refused_by_name(server, name, value):
    status, answer = server.chat(**{name: value})
    assert status == 400
    assert name in answer["error"]["message"]
    named = {"max_completion_tokens": "max_tokens"}.get(name, name)  # the one of two that is named first
    assert answer["error"]["param"].startswith(named)
    assert set(answer["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", chat(max_tokens=1, max_completion_tokens=2), "max_tokens"),
        ("/v1/chat/completions", chat(top_logprobs=2), "top_logprobs"),
        ("/v1/chat/completions", chat(tool_choice="required"), "tool_choice"),
        ("/v1/chat/completions", chat(tool_choice={"type": "function", "function": {"name": "a"}}), "tool_choice"),
        ("/v1/completions", {"model": "tiny", "prompt": ["a"] * 5, "n": 2}, "n"),
        ("/v1/responses", {"model": "tiny", "input": "a", "top_logprobs": 2}, "top_logprobs"),
    ],
)
def test_a_check_of_several_parameters_states_the_one_at_fault(server, path, body, param):
    status, answer = server.ask("POST", path, body)
    assert (status, answer["error"]["param"], answer["error"]["code"]) == (400, param, "invalid_value")


def test_the_parameter_at_fault_is_not_read_off_the_sentence():
    class Both(Request):
        one: int
        other: int

        @model_validator(mode="after")
        def _check(self):
            raise invalid("other", "one is {one}, which it does not fit", one=self.one)

    with pytest.raises(ValidationError) as caught:
        Both(one=1, other=2)
    error = api_error(RequestValidationError(caught.value.errors()))
    assert (error.param, error.message) == ("other", "one is 1, which it does not fit")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "wizard", "content": "a"}, "messages.1.role"),
        ({"role": "user"}, "messages.1"),
        ({"role": "user", "content": None}, "messages.1"),
        ({"role": "tool", "content": "a"}, "messages.1"),
        ({"role": "user", "content": "a", "tool_calls": [{"id": "1", "function": {"name": "a", "arguments": ""}}]}, ""),
        ({"role": "user", "content": "\ud800"}, "messages.1.content"),
        ({"role": "user", "content": "a", "weight": 1}, "messages.1.weight"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}, ""),
    ],
)
def test_a_message_that_cannot_be_read_is_named(server, message, param):
    status, answer = server.chat(messages=[{"role": "user", "content": "a"}, message])
    assert status == 400
    assert answer["error"]["param"].startswith(param or "messages.1")


def test_an_image_is_refused_as_such(server):
    part = {"type": "image_url", "image_url": {"url": "http://localhost/a.png"}}
    _, answer = server.chat(messages=[{"role": "user", "content": [part]}])
    assert "the models read text only, no image_url" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, None),
        ({"prompt": ["a"] * 5, "n": 2}, "n"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "logprobs": 3}, "logprobs"),
        ({"prompt": "a", "messages": []}, "messages"),
    ],
)
def test_what_completions_do_not_have_is_refused(server, more, param):
    status, answer = server.ask("POST", "/v1/completions", {"model": "tiny", **more})
    assert status == 400
    assert (answer["error"]["param"] or "").startswith(param or "")


@pytest.mark.parametrize(
    "name", ["other", "../tiny", "/etc/passwd", "hf://a/b", "http://a/b", "microsoft/phi-4", "C:\\"]
)
def test_no_other_model_is_looked_for(server, name):
    for path in ("/v1/chat/completions", "/v1/completions"):
        body = chat(model=name) if "chat" in path else {"model": name, "prompt": "a"}
        status, answer = server.ask("POST", path, body)
        assert (status, answer["error"]["code"], answer["error"]["param"]) == (404, "model_not_found", "model")


def test_a_prompt_that_is_too_long_says_so(server):
    status, answer = server.chat("Hello " * 5000)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    status, answer = server.ask("POST", "/v1/completions", {"model": "tiny", "prompt": "Hello " * 5000})
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


def test_a_stream_that_cannot_begin_has_a_status(server):
    status, answer = server.chat("Hello " * 5000, stream=True)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/tiny", 405, "method_not_allowed"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/models/other", 404, "model_not_found"),
        ("GET", "/v1/models/owner%2Fname", 404, "model_not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/v1/../../etc/passwd", 404, "not_found"),
    ],
)
def test_what_is_not_there_is_an_error_in_the_same_form(server, method, path, status, code):
    found, answer = server.ask(method, path)
    assert (found, answer["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/v1//messages/", "/v1/messages"),
        ("/v1/health", "/health"),
    ],
)
def test_an_address_with_another_beginning_is_told_where_it_leads(server, path, meant):
    status, answer = server.ask("POST", path, chat())
    assert status == 404
    assert answer["error"]["message"].endswith(f"; {meant} is one")


def test_an_address_like_no_other_is_not_guessed(server):
    assert server.ask("POST", "/v1/embeddings", chat())[1]["error"]["message"] == "there is nothing at this address"


@pytest.mark.parametrize(
    ("path", "status"), [("/health", 200), ("/v1/models", 200), ("/", 200), ("/nothing", 404), ("/v1/messages", 405)]
)
def test_head_is_answered_as_get_without_the_body(server, path, status):
    """Monitors and clients ask so whether the server is there."""
    response = server.send("HEAD", path)
    assert (response.status, response.read()) == (status, b"")
    assert int(response.headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("path", "param", "form"),
    [
        ("/v1/chat/completions", "messages", lambda text: [{"role": "user", "content": text}]),
        ("/v1/completions", "prompt", str),
        ("/v1/responses", "input", str),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_too_long_is_named(server, path, param, form, stream):
    status, answer = server.ask("POST", path, {"model": "tiny", param: form("Hello " * 5000), "stream": stream})
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert answer["error"]["param"] == param


def test_of_several_alternatives_the_one_is_told_that_was_meant(server):
    _, answer = server.ask("POST", "/v1/responses", {"model": "tiny", "input": []})
    assert "at least 1 item" in answer["error"]["message"]
    assert answer["error"]["param"] == "input"


BODIES = [
    *(b"", b"{", b"null", b"[]", b'"text"', b"\xff\xfe", b"\x00", b"1" * 5000, b"[" * 100_000, b'{"a":' * 50_000),
    *(b'{"model": NaN}', b'{"model": 1e999, "messages": [{}]}', b'{"model":"a","model":"b"}', b'{"\\ud800": 1}'),
    *("{}".encode("utf-16"), "{}".encode("utf-32"), b"\xef\xbb\xbf{}", b"{}\x00", b"{} {}"),
]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_malformed_body_is_the_clients_fault(server, path, body):
    status, answer = server.ask("POST", path, body, content_type="application/json")
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"


def test_a_form_is_no_json(server):
    for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data"):
        assert server.ask("POST", "/v1/chat/completions", json.dumps(chat()).encode(), content_type=kind)[0] == 400


VALUES = [
    None,
    True,
    0,
    -1,
    1e308,
    2**70,
    "",
    "a" * 300,
    "\ud83d",
    [],
    {},
    [[]],
    {"a": {}},
    [None],
    ["a"],
    {"type": "x"},
]


def mutated(body, chance):
    """Replace, drop or repeat parts of a document."""
    if isinstance(body, dict):
        found = {key: mutated(value, chance) for key, value in body.items() if chance.random() > 0.05}
        return (
            {**found, chance.choice(["a", "n", "stop", "content", ""]): pick(chance)}
            if chance.random() < 0.1
            else found
        )
    if isinstance(body, list):
        return [mutated(each, chance) for each in body for _ in range(chance.choice([1, 1, 1, 2]))]
    return pick(chance) if chance.random() < 0.15 else body


def pick(chance):
    return chance.choice(VALUES)


def test_mutated_requests_end_in_an_answer_or_an_error_of_the_client(server):
    chance = random.Random(5)
    whole = chat(
        temperature=0.5,
        stop=["x"],
        stream=False,
        stream_options={"include_usage": True},
        seed=1,
        response_format=SCHEMA,
        tools=[{"type": "function", "function": {"name": "a", "parameters": {"type": "object"}}}],
        tool_choice="none",
    )
    connection = server.connect()
    for _ in range(200):
        data = json.dumps(mutated(whole, chance)).encode()
        if chance.random() < 0.2:
            place = chance.randrange(len(data))
            data = data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]
        connection.request("POST", "/v1/chat/completions", data, {"content-type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        assert response.status in {200, 400, 404}, (data, text)
    connection.close()
    assert server.chat()[0] == 200

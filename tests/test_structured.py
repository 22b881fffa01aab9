"""Answers in a form that was asked for, and tokens with their probabilities, as the package openai asks for them."""

from __future__ import annotations

import asyncio
import json
import math

import pytest

pytest.importorskip("pydantic", reason="needs phi3-core[server]")
import pydantic

openai = pytest.importorskip("openai", reason="needs the package openai")
jsonschema = pytest.importorskip("jsonschema", reason="needs the package jsonschema")
pytestmark = pytest.mark.slow

QUESTION = {"role": "user", "content": "Describe a town in France."}
PRONE_TO_PARTS = {"role": "user", "content": "Repeat these: 😀 你好 wörld"}


class Town(pydantic.BaseModel):
    """A town."""

    model_config = pydantic.ConfigDict(extra="forbid")
    name: str = pydantic.Field(max_length=20)
    people: int = pydantic.Field(ge=0, le=10_000_000)
    kind: str = pydantic.Field(pattern="^(old|new)$")


class Clock(pydantic.BaseModel):
    """Tells the time in a zone."""

    model_config = pydantic.ConfigDict(extra="forbid")
    hours: int = pydantic.Field(ge=-12, le=14)


TOOLS = [openai.pydantic_function_tool(Town), openai.pydantic_function_tool(Clock)]
FLAT_TOOLS = [{"type": "function", **tool["function"]} for tool in TOOLS]


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as made:
        yield made


def chat(client, **more):
    asked = {"model": "sample", "messages": [QUESTION], "max_tokens": 300, **more}
    return client.chat.completions.create(**asked)


def schema_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


# --- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 1, "seed": 5}])
def test_a_pydantic_model_is_answered(client, sampling):
    asked = {"model": "sample", "messages": [QUESTION], "max_tokens": 300, "response_format": Town, **sampling}
    assert isinstance(client.chat.completions.parse(**asked).choices[0].message.parsed, Town)
    with client.chat.completions.stream(**asked) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Town)


def test_responses_have_forms(client):
    asked = {"model": "sample", "input": [QUESTION], "max_output_tokens": 300}
    assert isinstance(client.responses.parse(**asked, text_format=Town).output_parsed, Town)
    said = client.responses.create(**asked, text={"format": {"type": "json_object"}})
    if said.status == "completed":
        assert isinstance(json.loads(said.output_text), dict)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("choice", "names"),
    [("required", {"Town", "Clock"}), ({"type": "function", "function": {"name": "Clock"}}, {"Clock"})],
)
def test_a_call_is_made_if_it_has_to_be(client, choice, names, stream):
    asked = {"model": "sample", "messages": [QUESTION], "max_tokens": 300, "tools": TOOLS, "tool_choice": choice}
    asked["parallel_tool_calls"] = False
    if stream:
        with client.chat.completions.stream(**asked) as events:
            for _ in events:
                pass
            answer = events.get_final_completion().choices[0]
    else:
        answer = client.chat.completions.parse(**asked).choices[0]
    assert answer.finish_reason == "tool_calls"
    (call,) = answer.message.tool_calls
    assert call.function.name in names
    assert type(call.function.parsed_arguments).__name__ == call.function.name


def test_responses_make_calls(client):
    asked = {"model": "sample", "input": [QUESTION], "max_output_tokens": 300, "tools": FLAT_TOOLS}
    named = client.responses.create(**asked, tool_choice={"type": "function", "name": "Clock"})
    assert [item.name for item in named.output] == ["Clock"]
    Clock.model_validate_json(named.output[0].arguments)


def test_several_calls_may_be_made(client):
    answer = chat(client, tools=TOOLS, tool_choice="required", max_tokens=1000, temperature=1, seed=2).choices[0]
    kinds: dict[str, type[pydantic.BaseModel]] = {"Town": Town, "Clock": Clock}
    for call in answer.message.tool_calls or ():
        kinds[call.function.name].model_validate_json(call.function.arguments)
    assert answer.message.tool_calls or answer.finish_reason == "length"


def test_answers_of_different_forms_are_made_together(client):
    schemas = [
        {
            "type": "object",
            "properties": {f"key{place}": {"type": "integer", "maximum": 999, "minimum": -999}},
            "required": [f"key{place}"],
            "additionalProperties": False,
        }
        for place in range(8)
    ]

    async def ask_all():
        async with openai.AsyncOpenAI(base_url=client.base_url, api_key="none", max_retries=0) as many:
            asked = {"model": "sample", "messages": [QUESTION], "max_tokens": 300}
            making = (many.chat.completions.create(**asked, response_format=schema_format(each)) for each in schemas)
            return await asyncio.gather(*making)

    for schema, answer in zip(schemas, asyncio.run(ask_all()), strict=True):
        assert answer.choices[0].finish_reason == "stop"
        jsonschema.validate(json.loads(answer.choices[0].message.content), schema)


@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_followed_is_refused_by_name_and_others_go_on(client, stream):
    form = schema_format({"type": "object", "not": {"required": ["a"]}})
    with pytest.raises(openai.BadRequestError, match='Unimplemented keys: .*"not"'):
        chat(client, response_format=form, stream=stream)
    assert chat(client, max_tokens=3).choices[0].message.content


# --- probabilities ----------------------------------------------------------------------------------------------------


def check(tokens, text, top):
    assert b"".join(bytes(token.bytes or []) for token in tokens).decode() == text
    for token in tokens:
        assert len(token.top_logprobs) == top
        assert sum(math.exp(other.logprob) for other in token.top_logprobs) <= 1.001
        assert (token.top_logprobs[0].logprob, token.top_logprobs[0].token) == (token.logprob, token.token)


def test_chat_has_logprobs(client):
    asked = {"messages": [PRONE_TO_PARTS], "max_tokens": 16, "logprobs": True, "top_logprobs": 4}
    answer = chat(client, **asked)
    choice = answer.choices[0]
    assert len(choice.logprobs.content) == answer.usage.completion_tokens
    text = choice.message.content
    whole = [token for token in choice.logprobs.content if token.bytes]
    assert b"".join(bytes(token.bytes) for token in whole).decode(errors="ignore") == text
    chunks = [each.choices[0] for each in chat(client, **asked, stream=True)]
    streamed = [token for chunk in chunks for token in (chunk.logprobs.content if chunk.logprobs else ())]
    assert [token.bytes for token in streamed] == [token.bytes for token in choice.logprobs.content]
    for chunk in chunks:
        if chunk.delta.content and chunk.logprobs:
            check(chunk.logprobs.content, chunk.delta.content, 4)


def test_completions_have_logprobs(client):
    asked = {"model": "sample", "prompt": "The capital of France is", "max_tokens": 8, "logprobs": 2}
    choice = client.completions.create(**asked).choices[0]
    found = choice.logprobs
    assert "".join(found.tokens) == choice.text
    assert found.text_offset == [len("".join(found.tokens[:place])) for place in range(len(found.tokens))]
    best = [max(top, key=top.get) for top in found.top_logprobs]
    assert best == found.tokens
    assert [top[token] for top, token in zip(found.top_logprobs, found.tokens, strict=True)] == found.token_logprobs
    parts = [each.choices[0].logprobs for each in client.completions.create(**asked, stream=True)]
    assert [token for part in parts if part for token in part.tokens] == found.tokens


def test_responses_have_logprobs(client):
    asked = {"model": "sample", "input": "Say hello.", "max_output_tokens": 6, "top_logprobs": 3}
    asked["include"] = ["message.output_text.logprobs"]
    part = client.responses.create(**asked).output[0].content[0]
    check(part.logprobs, part.text, 3)
    with client.responses.stream(**asked) as stream:
        *_, last = stream
        streamed = last.response.output[0].content[0]
    assert [token.logprob for token in streamed.logprobs] == [token.logprob for token in part.logprobs]


def test_logprobs_and_tools_do_not_go_together(client):
    with pytest.raises(openai.BadRequestError, match="'logprobs' is not supported together with tools"):
        chat(client, logprobs=True, tools=TOOLS)

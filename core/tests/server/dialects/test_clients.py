"""The openai and anthropic packages, as their users call them."""

from __future__ import annotations

import asyncio
import json

import pydantic
import pytest

openai = pytest.importorskip("openai", reason="needs the package openai")
anthropic = pytest.importorskip("anthropic", reason="needs the package anthropic")

CALL = '[{"name": "Weather", "arguments": {"city": "Paris"}}]'
CALLED = f"I look.<|tool_call|>{CALL}<|/tool_call|>"
USER = {"role": "user", "content": "How is it?"}


class Weather(pydantic.BaseModel):
    """The weather of a city."""

    city: str


@pytest.fixture
def client(address, script):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def claude(address, script):
    with anthropic.Anthropic(base_url=address, api_key="none", max_retries=0) as made:
        yield made


# --- openai: chat -----------------------------------------------------------------------------------------------------


def test_tools_of_chat(client, script):
    script.begin(CALLED, "It is sunny.")
    tools = [openai.pydantic_function_tool(Weather)]
    answer = client.chat.completions.create(model="m", messages=[USER], tools=tools).choices[0]
    assert (answer.message.content, answer.finish_reason) == ("I look.", "tool_calls")
    (call,) = answer.message.tool_calls
    assert Weather.model_validate_json(call.function.arguments).city == "Paris"
    messages = [USER, answer.message, {"role": "tool", "tool_call_id": call.id, "content": "Sun"}]
    said = client.chat.completions.create(model="m", messages=messages, tools=tools).choices[0].message
    assert said.content == "It is sunny."


def test_a_stream_of_chat_with_tools(client, script):
    script.begin(CALLED)
    options = {"model": "m", "messages": [USER], "tools": [openai.pydantic_function_tool(Weather)]}
    with client.chat.completions.stream(**options) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion().choices[0].message
    assert {"content.delta", "tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds
    assert final.content == "I look."
    assert final.tool_calls[0].function.parsed_arguments == Weather(city="Paris")


def test_an_answer_as_a_class(client, script):
    script.begin('{"city": "Paris"}')
    chat = client.chat.completions.parse(model="m", messages=[USER], response_format=Weather)
    assert chat.choices[0].message.parsed == Weather(city="Paris")
    response = client.responses.parse(model="m", input="How is it?", text_format=Weather)
    assert response.output_parsed == Weather(city="Paris")
    assert [schema["required"] for schema in script.schemas] == [["city"]] * 2


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # of the package's own class
def test_answers_that_were_parsed_are_given_back(client, script):
    """The package has what it has parsed in them, and sends it too."""
    script.begin('{"city": "Paris"}', "It is sunny.", CALLED, "It is sunny.")
    chat = client.chat.completions
    said = chat.parse(model="m", messages=[USER], response_format=Weather).choices[0].message
    answer = chat.create(model="m", messages=[USER, said, USER])
    assert answer.choices[0].message.content == "It is sunny."
    tools = [openai.pydantic_function_tool(Weather)]
    said = chat.parse(model="m", messages=[USER], tools=tools).choices[0].message
    assert said.tool_calls[0].function.parsed_arguments == Weather(city="Paris")
    result = {"role": "tool", "tool_call_id": said.tool_calls[0].id, "content": "Sun"}
    answer = chat.create(model="m", messages=[USER, said, result], tools=tools)
    assert answer.choices[0].message.content == "It is sunny."


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_responses_that_were_parsed_are_given_back(client, script):
    script.begin('{"city": "Paris"}', "It is sunny.", CALLED, "It is sunny.")
    said = client.responses.parse(model="m", input=[USER], text_format=Weather).output
    assert client.responses.create(model="m", input=[USER, *said, USER]).output_text == "It is sunny."
    tools = [openai.pydantic_function_tool(Weather)["function"] | {"type": "function"}]
    said = client.responses.parse(model="m", input=[USER], tools=tools).output
    result = {"type": "function_call_output", "call_id": said[1].call_id, "output": "Sun"}
    assert client.responses.create(model="m", input=[USER, *said, result], tools=tools).output_text == "It is sunny."


# --- openai: responses ------------------------------------------------------------------------------------------------


def test_tools_of_responses(client, script):
    script.begin(CALLED, "It is sunny.")
    tools = [{"type": "function", "name": "Weather", "parameters": Weather.model_json_schema(), "strict": False}]
    asked = [USER]
    response = client.responses.create(model="m", input=asked, tools=tools)
    assert response.output_text == "I look."
    (call,) = [item for item in response.output if item.type == "function_call"]
    # What came back is sent again as it is.
    asked += [*response.output, {"type": "function_call_output", "call_id": call.call_id, "output": "Sun"}]
    response = client.responses.create(model="m", input=asked, tools=tools, store=False)
    assert (response.output_text, response.status) == ("It is sunny.", "completed")
    assert f"I look.<|tool_call|>{CALL}<|/tool_call|><|end|><|tool_response|>Sun<|end|>" in script.prompts[1]


def test_a_stream_of_responses(client, script):
    script.begin(CALLED)
    tools = [openai.pydantic_function_tool(Weather)["function"] | {"type": "function"}]
    with client.responses.stream(model="m", input="How is it?", tools=tools) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == "I look."
    assert json.loads(final.output[1].arguments) == {"city": "Paris"}
    assert final.usage.total_tokens > 0


def test_tasks(address, script):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as client:
            chats = [client.chat.completions.create(model="m", messages=[USER]) for _ in range(4)]
            answers = [answer.choices[0].message.content for answer in await asyncio.gather(*chats)]
            stream = await client.responses.create(model="m", input="How is it?", stream=True)
            text = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
        return [*answers, text]

    assert asyncio.run(ask()) == ["Hello, world!"] * 5


def test_errors_of_openai(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="m", input="Hello", previous_response_id="resp_1")
    assert (caught.value.param, caught.value.code) == ("previous_response_id", "unsupported_parameter")
    with pytest.raises(openai.NotFoundError, match="not kept"):
        client.responses.retrieve("resp_1")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="x", messages=[USER])


# --- anthropic --------------------------------------------------------------------------------------------------------

TOOL = {"name": "Weather", "description": "The weather of a city.", "input_schema": Weather.model_json_schema()}


def test_tools_of_messages(claude, script):
    script.begin(CALLED, "It is sunny.")
    options = {"model": "m", "max_tokens": 100, "tools": [TOOL], "system": "Be short."}
    answer = claude.messages.create(messages=[USER], **options)
    assert answer.stop_reason == "tool_use"
    text, use = answer.content
    assert (text.text, use.name, use.input) == ("I look.", "Weather", {"city": "Paris"})
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "Sun"}]}
    said = {"role": "assistant", "content": answer.content}  # sent again as it is
    answer = claude.messages.create(messages=[USER, said, result], **options)
    assert answer.content[0].text == "It is sunny."
    assert answer.usage.output_tokens > 0


def test_a_stream_of_messages(claude, script):
    script.begin(CALLED)
    with claude.messages.stream(model="m", max_tokens=100, messages=[USER], tools=[TOOL]) as stream:
        assert "".join(stream.text_stream) == "I look."
        final = stream.get_final_message()
    assert (final.stop_reason, final.content[1].input) == ("tool_use", {"city": "Paris"})
    assert final.usage.input_tokens > 0


def test_a_stop_sequence_of_messages(claude, script):
    script.begin("Hello, world!")
    answer = claude.messages.create(model="m", max_tokens=100, messages=[USER], stop_sequences=[", "])
    assert (answer.stop_reason, answer.stop_sequence, answer.content[0].text) == ("stop_sequence", ", ", "Hello")


def test_tokens_are_counted(claude):
    counted = claude.messages.count_tokens(model="m", messages=[USER], tools=[TOOL])
    answer = claude.messages.create(model="m", max_tokens=5, messages=[USER], tools=[TOOL])
    assert counted.input_tokens == answer.usage.input_tokens


def test_errors_of_anthropic(claude):
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.create(
            model="m", max_tokens=2048, messages=[USER], thinking={"type": "enabled", "budget_tokens": 1024}
        )
    assert caught.value.body["error"]["type"] == "invalid_request_error"
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(model="x", max_tokens=100, messages=[USER])

from __future__ import annotations

import json

import pytest
from phi3_core.errors import UsageError
from phi3_core.server.calls import ChatCall, ChatMessage, Tool, ToolCall, ToolChoice
from phi3_core.server.tools import MAX_CALLS, calls_schema, check_tools, shown_tools, write_messages

WEATHER = Tool(
    name="weather",
    description="The weather at a place",
    parameters={
        "type": "object",
        "properties": {"at": {"$ref": "#/$defs/Place"}, "near": {"type": "array", "items": {"$ref": "#/$defs/Place"}}},
        "required": ["at"],
        "$defs": {"Place": {"type": "object", "properties": {"city": {"type": "string"}, "in": {"$ref": "#"}}}},
    },
)
TIME = Tool(name="time")
ASKED = ChatMessage(role="user", content="How is it in Paris?")
CALLED = ChatMessage(
    role="assistant",
    content="I look.",
    tool_calls=(
        ToolCall(id="1", name="weather", arguments='{"at": {"city": "Paris"}}'),
        ToolCall(id="2", name="time", arguments="{"),
    ),
)
RESULTS = (
    ChatMessage(role="tool", content="12:00", tool_call_id="2"),
    ChatMessage(role="tool", content="Sun", tool_call_id="1"),
)


def call(*messages, **changes):
    return ChatCall(model="m", messages=messages or (ASKED,), **{"tools": (WEATHER, TIME), **changes})


def choice(mode, name=None):
    return {"tool_choice": ToolChoice(mode=mode, name=name)}


def test_the_form_of_phi_4_mini():
    written = write_messages(call(ASKED, CALLED, *RESULTS), native=True)
    system, asked, called, *results = written
    assert system["role"] == "system"
    assert json.loads(system["tools"])[0] == {
        "name": "weather",
        "description": "The weather at a place",
        "parameters": WEATHER.parameters,  # whole
    }
    assert asked == {"role": "user", "content": "How is it in Paris?"}
    assert called["content"] == "I look."
    assert json.loads(called["tool_calls"]) == [
        {"name": "weather", "arguments": {"at": {"city": "Paris"}}},
        {"name": "time", "arguments": "{"},
    ]
    # In the order of the calls: the form has no place for ids.
    assert results == [{"role": "tool", "content": "Sun"}, {"role": "tool", "content": "12:00"}]


def test_the_form_for_other_models():
    before = ChatMessage(role="system", content="Be short.")
    written = write_messages(call(before, ASKED, CALLED, *RESULTS), native=False)
    system, _, called, results = written
    assert all(set(message) == {"role", "content"} for message in written)
    assert [message["role"] for message in written] == ["system", "user", "assistant", "user"]
    assert system["content"].startswith("Be short.\n\n")
    assert json.dumps(dict(WEATHER.parameters)) in system["content"]
    assert called["content"].startswith('I look.\n<tool_call>\n[{"name": "weather"')
    assert results["content"].index('"result": "Sun"') < results["content"].index('"result": "12:00"')


@pytest.mark.parametrize("native", [False, True])
def test_without_tools_or_with_the_choice_none_the_model_sees_none(native):
    for changes in ({"tools": ()}, choice("none")):
        assert write_messages(call(**changes), native=native) == [{"role": "user", "content": ASKED.content}]
        assert shown_tools(call(**changes)) == ()


@pytest.mark.parametrize(
    "messages",
    [
        RESULTS[:1],
        (ASKED, CALLED),
        (ASKED, CALLED, RESULTS[0]),
        (ASKED, CALLED, RESULTS[0], RESULTS[0]),
        (ASKED, CALLED, *RESULTS, RESULTS[0]),
        (ASKED, CALLED, RESULTS[0], ASKED, RESULTS[1]),
        (ASKED, CALLED, RESULTS[0], ChatMessage(role="tool", content="", tool_call_id="3")),
    ],
)
def test_results_that_match_no_calls(messages):
    with pytest.raises(UsageError) as caught:
        write_messages(call(*messages), native=True)
    assert caught.value.hint


def test_the_schema_of_an_answer_that_has_to_call():
    schema = json.loads(calls_schema(call(**choice("required"))))
    assert (schema["type"], schema["minItems"], schema["maxItems"]) == ("array", 1, MAX_CALLS)
    assert [each["properties"]["name"] for each in schema["items"]["anyOf"]] == [
        {"const": "weather"},
        {"const": "time"},
    ]
    moved = schema["$defs"]["weather"]
    assert moved["properties"]["at"] == {"$ref": "#/$defs/weather/$defs/Place"}
    assert moved["properties"]["near"]["items"] == {"$ref": "#/$defs/weather/$defs/Place"}
    assert moved["$defs"]["Place"]["properties"]["in"] == {"$ref": "#/$defs/weather"}
    assert schema["$defs"]["time"] == {"type": "object", "properties": {}, "additionalProperties": False}


def test_a_property_may_be_called_ref():
    tool = Tool(name="look", parameters={"type": "object", "properties": {"$ref": {"type": "string"}}})
    check_tools(call(tools=(tool,)))
    schema = json.loads(calls_schema(call(tools=(tool,), **choice("required"))))
    assert schema["$defs"]["look"] == tool.parameters


def test_the_schema_of_one_call():
    for changes in (choice("named", "time"), {**choice("required"), "tools": (TIME,), "parallel_tool_calls": False}):
        schema = json.loads(calls_schema(call(**changes)))
        assert schema["maxItems"] == 1
        assert schema["items"]["properties"]["name"] == {"const": "time"}
        assert set(schema["$defs"]) == {"time"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tools": tuple(Tool(name=f"f{number}") for number in range(129))}, "129 tools"),
        ({"tools": (TIME, TIME)}, "same name"),
        ({"tools": (Tool(name="a b"),)}, "'a b'"),
        ({"tools": (Tool(name=""),)}, "the name ''"),
        ({"tools": (Tool(name="x" * 65),)}, "the name"),
        ({"tools": (Tool(name="f", parameters={"type": "string"}),)}, "not that of an object"),
        ({"tools": (), **choice("required")}, "no tools"),
        (choice("named", "other"), "'other'"),
        ({**choice("required"), "json_object": True}, "cannot both"),
        ({**choice("named", "time"), "json_schema": "{}"}, "cannot both"),
    ],
)
def test_tools_that_cannot_be_called(changes, words):
    with pytest.raises(UsageError, match=words) as caught:
        check_tools(call(**changes))
    assert caught.value.hint


def test_tools_that_can_be_called():
    for changes in (choice("required"), choice("auto"), choice("named", "time"), {"json_object": True}):
        check_tools(call(**changes))

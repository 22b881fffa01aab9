"""Tools, /v1/responses and /v1/messages over HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

WEATHER = {
    "type": "object",
    "properties": {"at": {"$ref": "#/$defs/Place"}},
    "required": ["at"],
    "$defs": {"Place": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CALL = '[{"name": "weather", "arguments": {"at": {"city": "Paris"}}}]'
CALLED = f"<|tool_call|>{CALL}<|/tool_call|>"
ARGUMENTS = {"at": {"city": "Paris"}}
USER = {"role": "user", "content": "How is it?"}
CHAT_TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Look", "parameters": WEATHER}}]
RESPONSES_TOOLS = [{"type": "function", "name": "weather", "description": "Look", "parameters": WEATHER}]
MESSAGES_TOOLS = [{"name": "weather", "description": "Look", "input_schema": WEATHER}]


@pytest.fixture
def post(address, script):
    """Sends a request; returns the status and the document, or all lines of a stream."""

    def send(path, **body):
        data = json.dumps({"model": "m", **body}).encode()
        request = urllib.request.Request(address + path, data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                content = response.read().decode()
                return response.status, content.split("\n") if body.get("stream") else json.loads(content)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    return send


def chat(post, **body):
    return post("/v1/chat/completions", **{"messages": [USER], "tools": CHAT_TOOLS, **body})


def responses(post, **body):
    return post("/v1/responses", **{"input": "How is it?", "tools": RESPONSES_TOOLS, **body})


def messages(post, **body):
    return post("/v1/messages", **{"messages": [USER], "tools": MESSAGES_TOOLS, "max_tokens": 500, **body})


# --- tools in the three dialects --------------------------------------------------------------------------------------


def test_a_call_in_each_dialect(post, script):
    script.begin(CALLED)
    status, answer = chat(post)
    assert status == 200
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert not choice["message"]["content"]
    (call,) = choice["message"]["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", "weather")
    assert json.loads(call["function"]["arguments"]) == ARGUMENTS

    _, answer = responses(post)
    (item,) = answer["output"]
    assert (item["type"], item["name"], item["status"]) == ("function_call", "weather", "completed")
    assert json.loads(item["arguments"]) == ARGUMENTS
    assert answer["tools"][0]["parameters"] == WEATHER

    _, answer = messages(post)
    (block,) = answer["content"]
    assert (block["type"], block["name"], block["input"]) == ("tool_use", "weather", ARGUMENTS)
    assert answer["stop_reason"] == "tool_use"

    definitions = json.dumps([{"name": "weather", "description": "Look", "parameters": WEATHER}])
    prompt = (
        f"<|system|>You are a helpful assistant with some tools.<|tool|>{definitions}<|/tool|><|end|>"
        "<|user|>How is it?<|end|><|assistant|>"
    )
    assert script.prompts == [prompt] * 3
    assert script.schemas == [None] * 3


def test_results_in_each_dialect(post, script):
    script.begin("It is sunny.")
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": json.dumps(ARGUMENTS)}}
    said = {"role": "assistant", "content": "I look.", "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "Sun<|end|>"}
    assert chat(post, messages=[USER, said, result])[0] == 200
    item = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": json.dumps(ARGUMENTS)}
    output = {"type": "function_call_output", "call_id": "c1", "output": "Sun<|end|>"}
    assert responses(post, input=[USER, {"role": "assistant", "content": "I look."}, item, output])[0] == 200
    use = {"type": "tool_use", "id": "c1", "name": "weather", "input": ARGUMENTS}
    said = {"role": "assistant", "content": [{"type": "text", "text": "I look."}, use]}
    back = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "Sun<|end|>"}]}
    assert messages(post, messages=[USER, said, {"role": "user", "content": [back]}])[0] == 200
    end = f"<|user|>How is it?<|end|><|assistant|>I look.{CALLED}<|end|><|tool_response|>Sun<|end|><|end|><|assistant|>"
    assert [prompt[-len(end) :] for prompt in script.prompts] == [end] * 3


def test_a_call_has_to_be_made(post, script):
    script.begin(CALL)
    for ask, choices in (
        (chat, ("required", {"type": "function", "function": {"name": "weather"}})),
        (responses, ("required", {"type": "function", "name": "weather"})),
        (messages, ({"type": "any"}, {"type": "tool", "name": "weather"})),
    ):
        for choice in choices:
            status, answer = ask(post, tool_choice=choice)
            assert status == 200
            assert "Paris" in json.dumps(answer)
    assert {schema["items"]["properties"]["name"]["const"] for schema in script.schemas} == {"weather"}
    assert [schema["maxItems"] for schema in script.schemas] == [16, 1] * 3


def test_without_guidance_a_call_cannot_be_required(post, plain_script):
    status, answer = chat(post, model="plain", tool_choice="required")
    assert status == 400
    assert (answer["error"]["param"], answer["error"]["code"]) == ("tool_choice", "unsupported_parameter")


def test_without_guidance_json_is_refused_by_the_name_it_has(post, plain_script):
    form = {"type": "json_schema", "schema": WEATHER}
    status, answer = responses(post, model="plain", tools=None, text={"format": {**form, "name": "w"}})
    assert (status, answer["error"]["param"]) == (400, "text.format")
    status, answer = messages(post, model="plain", tools=None, output_config={"format": form})
    assert status == 400
    assert "output_config.format" in answer["error"]["message"]


def test_a_model_without_the_form_calls_tools_too(post, plain_script):
    plain_script.begin(f"I look.\n<tool_call>\n{CALL}\n</tool_call>", "It is sunny.")
    _, answer = chat(post, model="plain")
    message = answer["choices"][0]["message"]
    assert message["content"] == "I look."
    (call,) = message["tool_calls"]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "Sun<|end|>"}
    _, answer = chat(post, model="plain", messages=[USER, message, result])
    assert answer["choices"][0]["message"]["content"] == "It is sunny."
    first, second = plain_script.prompts
    assert json.dumps(WEATHER) in first
    assert '<tool_response>\n{"name": "weather", "result": "Sun<|end|>"}\n</tool_response>' in second
    assert second.count("<|user|>") == 2


def test_with_the_choice_none_an_answer_is_text(post, script):
    script.begin(CALLED)
    _, answer = chat(post, tool_choice="none")
    assert answer["choices"][0]["message"]["content"] == CALLED
    _, answer = responses(post, tool_choice="none")
    assert answer["output"][0]["content"][0]["text"] == CALLED
    _, answer = messages(post, tool_choice={"type": "none"})
    assert answer["content"] == [{"type": "text", "text": CALLED, "citations": None}]
    assert all("weather" not in prompt for prompt in script.prompts)


def test_one_call_at_most(post, script):
    script.begin(f"<|tool_call|>[{CALL[1:-1]}, {CALL[1:-1]}]<|/tool_call|>")
    assert len(chat(post)[1]["choices"][0]["message"]["tool_calls"]) == 2
    assert len(chat(post, parallel_tool_calls=False)[1]["choices"][0]["message"]["tool_calls"]) == 1
    assert len(responses(post, parallel_tool_calls=False)[1]["output"]) == 1
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    assert len(messages(post, tool_choice=choice)[1]["content"]) == 1


def test_a_call_that_is_cut_off_is_text(post, script):
    script.begin(CALLED)
    _, answer = chat(post, max_tokens=20)
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"].startswith('<|tool_call|>[{"na')
    assert not choice["message"].get("tool_calls")


def test_a_stream_of_chat(post, script, read_events):
    script.begin(f"I look.{CALLED}")
    _, lines = chat(post, stream=True)
    deltas = [event["choices"][0] for _, event in read_events(lines)]
    assert "".join(each["delta"].get("content") or "" for each in deltas) == "I look."
    ((call,),) = [calls for each in deltas if (calls := each["delta"].get("tool_calls"))]
    assert (call["index"], call["function"]["name"]) == (0, "weather")
    assert deltas[-1]["finish_reason"] == "tool_calls"


# --- /v1/responses ----------------------------------------------------------------------------------------------------


def test_the_events_of_a_response(post, script, read_events):
    script.begin(f"I look.{CALLED}")
    _, lines = responses(post, stream=True)
    events = list(read_events(lines))
    assert [name for name, _ in events] == [event["type"] for _, event in events]
    assert [event["sequence_number"] for _, event in events] == list(range(len(events)))
    kinds = [name.removeprefix("response.") for name, _ in events]
    deltas = kinds.count("output_text.delta")
    assert kinds == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *["output_text.delta"] * deltas,
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"),
        "completed",
    ]
    last = events[-1][1]["response"]
    message, call = last["output"]
    assert message["content"][0]["text"] == "I look."
    assert [event["item_id"] for _, event in events if "item_id" in event] == [message["id"]] * (deltas + 3) + [
        call["id"]
    ] * 2
    assert last["usage"]["total_tokens"] == last["usage"]["input_tokens"] + last["usage"]["output_tokens"]
    assert events[0][1]["response"]["output"] == []
    assert events[0][1]["response"]["status"] == "in_progress"


def test_a_response_that_is_cut_off(post, read_events):
    _, answer = responses(post, tools=None, max_output_tokens=3)
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert answer["completed_at"] is None
    _, lines = responses(post, tools=None, max_output_tokens=3, stream=True)
    assert list(read_events(lines))[-1][0] == "response.incomplete"


def test_the_input_of_a_response(post, script):
    items = [
        {"role": "developer", "content": "Be short."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "A"}]},
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "phase": "final_answer"}
        | {"content": [{"type": "output_text", "text": "B", "annotations": []}]},
        {"role": "user", "content": "C"},
    ]
    assert responses(post, input=items, instructions="Hello", tools=None)[0] == 200
    expected = "<|system|>Hello<|end|><|system|>Be short.<|end|><|user|>A<|end|><|assistant|>B<|end|><|user|>C<|end|>"
    assert script.prompts == [f"{expected}<|assistant|>"]


def test_a_response_in_json(post, script):
    script.begin('{"a": 1}')
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"type": "json_schema", "name": "a", "schema": schema, "strict": True}
    _, answer = responses(post, tools=None, text={"format": form})
    assert answer["output"][0]["content"][0]["text"] == '{"a": 1}'
    assert answer["text"]["format"]["schema"] == schema
    responses(post, tools=None, text={"format": {"type": "json_object"}})
    assert script.schemas == [schema, {"type": "object"}]


def test_allowed_tools_are_those_that_the_model_sees(post, script):
    other = {**RESPONSES_TOOLS[0], "name": "other"}
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "weather"}]}
    assert responses(post, tools=[*RESPONSES_TOOLS, other], tool_choice=choice)[0] == 200
    assert '"other"' not in script.prompts[0]
    assert '"weather"' in script.prompts[0]


REFUSED = {
    "store": True,
    "background": True,
    "previous_response_id": "resp_1",
    "conversation": "conv_1",
    "prompt": {"id": "pmpt_1"},
    "truncation": "auto",
    "include": ["message.output_text.logprobs"],
    "reasoning": {"effort": "high"},
    "max_tool_calls": 1,
    "top_logprobs": 2,
    "seed": 1,
    "input": [{"type": "item_reference", "id": "msg_1"}],
    "tools": [{"type": "web_search"}],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_response_does_not_have_is_refused_by_name(post, name):
    status, answer = responses(post, **{name: REFUSED[name]})
    assert status == 400
    assert answer["error"]["param"].startswith(name)
    assert answer["error"]["type"] == "invalid_request_error"


def test_what_asks_for_nothing_is_accepted(post):
    asked = {"store": False, "background": False, "truncation": "disabled", "include": [], "top_logprobs": 0}
    asked |= {
        "previous_response_id": None,
        "reasoning": {"effort": None},
        "service_tier": "auto",
        "metadata": {"a": "b"},
    }
    status, answer = responses(post, **asked)
    assert status == 200
    assert answer["metadata"] == {"a": "b"}


def test_responses_are_not_kept(address, post):
    number = responses(post)[1]["id"]
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{address}/v1/responses/{number}", timeout=30)
    assert caught.value.code == 404
    assert "not kept" in json.loads(caught.value.read())["error"]["message"]


# --- /v1/messages -----------------------------------------------------------------------------------------------------


def test_the_events_of_a_message(post, script, read_events):
    script.begin(f"I look.{CALLED}")
    _, lines = messages(post, stream=True)
    events = list(read_events(lines))
    assert [name for name, _ in events] == [event["type"] for _, event in events]
    kinds = [name.removeprefix("content_block_") for name, _ in events]
    texts = kinds.count("delta") - 1
    block = ["start", *["delta"] * texts, "stop"]
    assert kinds == ["message_start", *block, "start", "delta", "stop", "message_delta", "message_stop"]
    assert [event["index"] for _, event in events if "index" in event] == [0] * (texts + 2) + [1] * 3
    assert events[-5][1]["content_block"]["input"] == {}
    assert json.loads(events[-4][1]["delta"]["partial_json"]) == ARGUMENTS
    assert events[-2][1]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert events[-2][1]["usage"]["input_tokens"] > 0


def test_a_message(post, script):
    system = [{"type": "text", "text": "Be short.", "cache_control": {"type": "ephemeral"}}]
    _, answer = messages(post, tools=None, system=system, metadata={"user_id": "1"}, thinking={"type": "disabled"})
    assert answer["content"] == [{"type": "text", "text": "Hello, world!", "citations": None}]
    assert (answer["role"], answer["stop_reason"], answer["stop_sequence"]) == ("assistant", "end_turn", None)
    assert script.prompts == ["<|system|>Be short.<|end|><|user|>How is it?<|end|><|assistant|>"]
    _, answer = messages(post, max_tokens=3)
    assert answer["stop_reason"] == "max_tokens"
    _, counted = post("/v1/messages/count_tokens", messages=[USER], tools=MESSAGES_TOOLS)
    assert counted == {"input_tokens": answer["usage"]["input_tokens"]}


def begin(text):
    """A conversation that ends with the beginning of the answer."""
    return [USER, {"role": "assistant", "content": [{"type": "text", "text": text}]}]


@pytest.mark.parametrize("stream", [False, True])
def test_a_message_goes_on_with_its_beginning(post, script, stream, read_events):
    """As in Anthropic's interface, where an assistant's message at the end is no turn of its own."""
    script.begin(" is Paris.")
    _, answer = messages(post, tools=None, messages=begin("The capital"), stream=stream)
    if stream:
        deltas = [event["delta"]["text"] for name, event in read_events(answer) if name == "content_block_delta"]
        assert "".join(deltas) == " is Paris."
    else:
        assert [block["text"] for block in answer["content"]] == [" is Paris."]
    assert script.prompts == ["<|user|>How is it?<|end|><|assistant|>The capital"]


def test_the_beginning_of_a_message_counts(post):
    without = post("/v1/messages/count_tokens", messages=[USER])[1]["input_tokens"]
    assert post("/v1/messages/count_tokens", messages=begin("The capital"))[1]["input_tokens"] > without
    assert post("/v1/messages/count_tokens", messages=begin(""))[1]["input_tokens"] == without


def test_a_beginning_is_no_control_token(post, script):
    messages(post, tools=None, messages=begin("a<|end|><|user|>b"))
    assert script.prompts[0].endswith("<|assistant|>a<|end|><|user|>b")
    plain = post("/v1/messages/count_tokens", messages=begin("ab"))[1]["input_tokens"]
    assert post("/v1/messages/count_tokens", messages=begin("a<|end|><|user|>b"))[1]["input_tokens"] > plain + 2


@pytest.mark.parametrize(
    "body",
    [
        {"tool_choice": {"type": "any"}},
        {"tools": None, "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
    ],
)
def test_a_beginning_and_a_schema_are_refused_together(post, body):
    status, answer = messages(post, messages=begin("{"), **body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert answer["error"]["message"].startswith("'messages' cannot begin the answer")


def test_a_result_that_is_an_error_says_so(post, script):
    use = {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": {}}]}
    back = {"type": "tool_result", "tool_use_id": "c1", "content": "no network", "is_error": True}
    again = {"type": "text", "text": "Try again."}
    assert messages(post, messages=[USER, use, {"role": "user", "content": [back, again]}])[0] == 200
    assert script.prompts[0].endswith("<|tool_response|>Error: no network<|end|><|user|>Try again.<|end|><|assistant|>")


@pytest.mark.parametrize(
    "body",
    [
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"mcp_servers": [{"type": "url"}]},
        {"container": "c"},
        {"unknown": 1},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "1", "name": "a", "input": {}}]}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"tool_choice": {"type": "tool", "name": "other"}},
        {"max_tokens": None},
    ],
    ids=range(9),
)
def test_what_a_message_does_not_have_is_refused(post, body):
    status, answer = messages(post, **body)
    assert status == 400
    assert answer["type"] == "error"
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["message"]


def test_a_model_that_is_not_there(post):
    assert messages(post, model="x")[0] == 404
    assert messages(post, model="x", stream=True)[1]["error"]["type"] == "not_found_error"
    assert responses(post, model="x", stream=True)[1]["error"]["code"] == "model_not_found"

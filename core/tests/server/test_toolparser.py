from __future__ import annotations

import json
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phi3_core.server.calls import TextDelta, ToolCallDelta
from phi3_core.server.toolparser import MAX_DEPTH, ToolCallParser

NAMES = {"weather", "time"}
WEATHER = '{"name": "weather", "arguments": {"at": {"city": "Par]}\\"is"}, "days": [1, [2]]}}'
TIME = '{"name": "time", "arguments": {}}'
W = ("weather", {"at": {"city": 'Par]}"is'}, "days": [1, [2]]})
T: tuple[str, dict] = ("time", {})

CALLS = {
    f"<|tool_call|>[{WEATHER}]<|/tool_call|>": ["", W],
    f"<|tool_call|>[{WEATHER}, {TIME}]<|/tool_call|>": ["", W, T],
    f"<|tool_call|>{TIME}<|/tool_call|>": ["", T],
    f"<|tool_call|>{TIME}": ["", T],
    f"<|tool_call|>{TIME}<|/tool_call|><|tool_call|>{WEATHER}<|/tool_call|>": ["", T, W],
    f"<|tool_call|>\n{TIME}\n{WEATHER}\n<|/tool_call|>\n": ["", T, W],
    f"I look.\n\n<tool_call>\n[{TIME}]\n</tool_call>\n": ["I look.", T],
    f"<tool_call>[{TIME}]</tool_call> That is it. ": ["That is it.", T],
    f"[{WEATHER}, {TIME}]": ["", W, T],
    f" \n{TIME}\n": ["", T],
    '{"type": "function", "name": "time", "parameters": {}}': ["", T],
    '[{"type": "function", "function": {"name": "time", "arguments": "{}"}}]': ["", T],
    '{"arguments": {"a": 1}, "name": "time"}': ["", ("time", {"a": 1})],
    '{"name": "time"}': ["", T],
    '{"name": "time", "arguments": ""}': ["", T],
    '{"name": "time", "arguments": "{\\"a\\": \\"\\u00e9\\"}"}': ["", ("time", {"a": "é"})],
    f"<tool_call>nothing</tool_call> [{TIME}] <tool_call>{TIME}</tool_call>": [
        f"<tool_call>nothing</tool_call> [{TIME}]",
        T,
    ],
}
TEXTS = (
    "",
    " \n",
    "Hello, world! ",
    "  a [list] and an {object} ",
    '[1, 2, {"name": "x"}]',
    '{"answer": 1}',
    '[{"named": "time"}]',
    "a < b <| c <|tool_cal",
    "<|tool_call|>",
    "<|tool_call|>[]<|/tool_call|>",
    "<|tool_call|>not JSON<|/tool_call|>",
    '<|tool_call|>[{"name": "time", "arguments": {}}',
    '<|tool_call|>[{"name": "time", "arguments": {}]}<|/tool_call|>',
    '<|tool_call|>[{"name": "unknown", "arguments": {}}]<|/tool_call|>',
    f'<tool_call>[{TIME}, {{"name": "unknown"}}]</tool_call>',
    '{"name": ["time"]}',
    '{"name": "time", "arguments": [1]}',
    '{"name": "time", "arguments": "not JSON"}',
    '{"name": "time", "arguments": {"a": NaN}}',
    '{"name": "time", "arguments": {"a": 1e999}}',
    '{"name": "time", "arguments": {"a": "\\ud800"}}',
    '{"name": "time", "arguments": {"a": ' + "1" * 5000 + "}}",
    '{"name": "time", "arguments": {"a": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}}",
    '{"name": "time", "arguments": {"a": ' + "[" * 100_000,
    '{"name": "time", "arguments": {} "',
)


def parse(text, cuts=(), **options):
    """The text and the calls of an answer that arrives in pieces."""
    parser = ToolCallParser(NAMES, **options)
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    events = [event for start, end in pairwise(bounds) for event in parser.push(text[start:end])]
    events += parser.finish()
    calls = [event for event in events if not isinstance(event, TextDelta)]
    assert [call.index for call in calls] == list(range(parser.count))
    assert len({call.id for call in calls}) == len(calls)
    said = "".join(event.text for event in events if isinstance(event, TextDelta))
    return [said, *((call.name, json.loads(call.arguments)) for call in calls)]


@pytest.mark.parametrize("text", CALLS)
@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 200), max_size=5))
def test_calls_are_found_however_the_text_arrives(text, cuts):
    assert parse(text, cuts) == CALLS[text]


@pytest.mark.parametrize("text", CALLS)
def test_calls_are_found_character_by_character(text):
    assert parse(text, range(len(text))) == CALLS[text]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 100), max_size=5))
def test_what_is_no_call_is_text(text, cuts):
    assert parse(text, cuts) == [text]


def test_text_is_not_held_back():
    parser = ToolCallParser(NAMES)
    assert list(parser.push("Hello, wor")) == [TextDelta(text="Hello, wor")]
    assert list(parser.push("ld <b>")) == [TextDelta(text="ld <b>")]
    assert list(parser.push(" <|tool")) == []
    assert list(parser.push("box|>")) == [TextDelta(text=" <|toolbox|>")]


def test_without_functions_nothing_is_held_back():
    parser = ToolCallParser(())
    for text in (" ", "<|tool_call|>[", f"{TIME}]", "<|/tool_call|> \n"):
        assert list(parser.push(text)) == [TextDelta(text=text)]
    assert list(parser.finish()) == []


def test_an_answer_that_begins_as_a_list_is_held_back_only_while_it_may_be_calls():
    parser = ToolCallParser(NAMES)
    assert list(parser.push("[")) == []
    assert list(parser.push("1, 2")) == [TextDelta(text="[1, 2")]


def test_a_call_is_given_out_when_it_is_whole():
    parser = ToolCallParser(NAMES, choice=2)
    assert list(parser.push(f"<|tool_call|>[{TIME}")) == []
    (call,) = parser.push("]")
    assert isinstance(call, ToolCallDelta)
    assert (call.name, call.arguments, call.choice) == ("time", "{}", 2)
    assert call.id is not None
    assert call.id.startswith("call_")
    assert list(parser.push("<|/tool_call|>")) == []
    assert list(parser.finish()) == []


def test_at_most_so_many_calls():
    assert parse(f"<|tool_call|>[{TIME}, {WEATHER}]<|/tool_call|><|tool_call|>{WEATHER}", most=1) == ["", T]


def test_long_arguments_take_linear_time():
    text = '{"name": "time", "arguments": {"text": "' + '\\"[x' * 50_000 + '"}}'
    started = time.thread_time()
    assert parse(text, range(0, len(text), 64))[1][0] == "time"
    assert time.thread_time() - started < 2

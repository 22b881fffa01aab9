"""``/v1/chat/completions`` and ``/v1/completions``, whole and as streams, over HTTP."""

from __future__ import annotations

import time

import pytest
from serving_toy import chat


def test_an_answer_has_openais_form(server):
    status, answer = server.chat("Hello world")
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == "tiny"
    assert answer["system_fingerprint"].endswith("chorus:CPU fp16")
    [choice] = answer["choices"]
    assert choice["index"] == 0
    assert choice["finish_reason"] == "length"
    stated = {"role": "assistant", "content": choice["message"]["content"], "refusal": None, "annotations": []}
    assert choice["message"] == stated
    assert choice["message"]["content"].split()[0] == "Hello"
    usage = answer["usage"]
    assert usage["completion_tokens"] == 3
    assert usage["total_tokens"] == usage["prompt_tokens"] + 3
    assert answer["phi3"]["device"] == "chorus:CPU"


def test_a_stream_has_the_same_text_and_its_usage_if_asked(server):
    _, whole = server.chat("Hello world", max_tokens=8)
    chunks = list(server.stream("/v1/chat/completions", chat(max_tokens=8, stream_options={"include_usage": True})))
    *answer, end, usage = chunks
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert answer[0]["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in answer)
    assert text == whole["choices"][0]["message"]["content"]
    assert (end["choices"][0]["delta"], end["choices"][0]["finish_reason"]) == ({}, "length")
    assert (usage["choices"], usage["usage"]) == ([], whole["usage"])
    assert all(chunk["usage"] is None for chunk in (*answer, end))


def test_a_stream_says_nothing_of_usage_unless_asked_and_has_an_end(server):
    response = server.send("POST", "/v1/chat/completions", chat(stream=True))
    text = response.read()
    assert b'"usage"' not in text
    assert text.endswith(b"data: [DONE]\n\n")
    assert response.headers["cache-control"] == "no-store"


def test_several_answers_have_seeds_of_their_own(server):
    before = len(server.notes("asked"))
    status, answer = server.chat(n=3, seed=-1, temperature=0.5)
    assert status == 200
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] == 9
    assert sorted(note["seed"] for note in server.notes("asked")[before:]) == [0, 1, 2**32 - 1]


def test_several_answers_stream_side_by_side(server):
    chunks = list(server.stream("/v1/chat/completions", chat(n=2)))
    ends = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["finish_reason"]]
    assert {end["index"] for end in ends} == {0, 1}
    roles = [chunk for chunk in chunks if "role" in chunk["choices"][0]["delta"]]
    assert len(roles) == 2


def test_parameters_reach_the_engine(server):
    stated = {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.1, "seed": 7}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": True}}
    server.chat(**stated, response_format=form)
    asked = server.notes("asked")[-1]
    assert asked == {**stated, "max_new_tokens": 3, "json_schema": '{"type": "object"}'}


def test_what_is_not_stated_comes_from_the_server(server):
    body = chat()
    del body["max_tokens"]
    server.ask("POST", "/v1/chat/completions", body)
    asked = server.notes("asked")[-1]
    assert (asked["max_new_tokens"], asked["temperature"], asked["json_schema"]) == (5, 0.0, None)


def test_the_newer_name_of_max_tokens_holds_too(server):
    body = chat(max_completion_tokens=2)
    del body["max_tokens"]
    _, answer = server.ask("POST", "/v1/chat/completions", body)
    assert answer["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("stop", ["world", ["nothing", "world"]])
def test_a_stop_string_ends_the_answer(server, stop):
    _, answer = server.chat("Hello world", max_tokens=8, stop=stop)
    [choice] = answer["choices"]
    assert "world" not in choice["message"]["content"]
    assert choice["finish_reason"] == "stop"


def test_an_answer_can_be_given_back_and_content_may_be_in_parts(server):
    _, answer = server.chat()
    messages = [
        {"role": "developer", "content": "the capital"},
        {"role": "user", "content": [{"type": "text", "text": "Hello "}, {"type": "text", "text": "world"}]},
        answer["choices"][0]["message"],
        {"role": "user", "name": "someone", "content": "Paris"},
    ]
    harmless = {"user": "me", "metadata": {"a": "b"}, "store": False, "parallel_tool_calls": True, "logit_bias": {}}
    status, answer = server.chat(messages=messages, frequency_penalty=0, presence_penalty=0.0, **harmless)
    assert status == 200, answer


def test_a_text_is_continued_without_a_template(server):
    """The answer goes on with it, so its first word keeps the space before it."""
    status, answer = server.ask("POST", "/v1/completions", {"model": "tiny", "prompt": "Hello world", "max_tokens": 2})
    assert status == 200
    assert answer["object"] == "text_completion"
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}
    assert answer["choices"] == [{"index": 0, "text": " Hello world", "logprobs": None, "finish_reason": "length"}]


def test_several_texts_are_continued_in_their_order(server):
    body = {"model": "tiny", "prompt": ["Hello", "Paris is"], "n": 2, "max_tokens": 1}
    _, answer = server.ask("POST", "/v1/completions", body)
    assert [choice["text"] for choice in answer["choices"]] == [" Hello", " Hello", " Paris", " Paris"]
    assert answer["usage"]["prompt_tokens"] == 3
    chunks = list(server.stream("/v1/completions", {**body, "stream_options": {"include_usage": True}}))
    assert chunks[-1]["usage"] == answer["usage"]
    texts = dict.fromkeys(range(4), "")
    for chunk in chunks[:-1]:
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == {0: " Hello", 1: " Hello", 2: " Paris", 3: " Paris"}


def test_small_answers_are_sent_at_once(server):
    """Nagle's algorithm and delayed acknowledgements would hold each of them back for 40 ms."""
    connection = server.connect()
    took = []
    for _ in range(25):
        started = time.monotonic()
        connection.request("GET", "/nothing")  # which costs nothing itself
        connection.getresponse().read()
        took.append(time.monotonic() - started)
    connection.close()
    assert sorted(took)[5] < 0.03  # those that other programs on the machine have disturbed do not count


def test_an_engine_that_fails_again_and_again_is_an_error_with_a_status(server):
    status, answer = server.chat(max_tokens=66)
    assert status == 500
    assert answer["error"]["code"] == "engine_failed"
    assert "lost the device" in answer["error"]["message"]
    assert server.chat()[0] == 200  # it is loaded again


def test_an_engine_that_dies_again_and_again_in_a_stream_ends_it_with_an_error(server):
    *_, last = server.stream("/v1/chat/completions", chat(max_tokens=67))
    assert last["error"]["type"] == "server_error"
    assert server.chat()[0] == 200

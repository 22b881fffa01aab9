"""The server with phi3-openvino: the three dialects are answered by one model, as an application would be."""

from __future__ import annotations

import json
import urllib.request

import pytest

pytest.importorskip("fastapi", reason="needs phi3-core[server]")
QUESTION = {"role": "user", "content": "What is the capital of France?"}
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}


def post(address, path, **body):
    data = json.dumps({"model": "sample", **body}).encode()
    request = urllib.request.Request(address + path, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.loads(response.read())


@pytest.mark.slow
def test_each_dialect_gives_the_same_answer(address):
    chat = post(address, "/v1/chat/completions", messages=[QUESTION], max_tokens=20)
    response = post(address, "/v1/responses", input=[QUESTION], max_output_tokens=20)
    message = post(address, "/v1/messages", messages=[QUESTION], max_tokens=20)
    said = chat["choices"][0]["message"]["content"]
    assert "Paris" in said
    assert said == response["output"][0]["content"][0]["text"] == message["content"][0]["text"]
    tokens = {chat["usage"]["prompt_tokens"], response["usage"]["input_tokens"], message["usage"]["input_tokens"]}
    assert len(tokens) == 1
    # A model that was not trained for tools reads of them, and answers.
    shown = post(address, "/v1/chat/completions", messages=[QUESTION], max_tokens=20, tools=[TOOL])
    assert shown["usage"]["prompt_tokens"] > tokens.pop()
    assert shown["choices"][0]["finish_reason"] in {"stop", "length", "tool_calls"}

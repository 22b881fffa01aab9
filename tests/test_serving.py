"""The server with phi3-openvino: the three dialects are answered by one model, as an application would be."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
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


@pytest.fixture
def address(sample_store):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    options = ("--model", "sample", "--device", "openvino:CPU", "--port", str(port))
    with subprocess.Popen([sys.executable, "-m", "phi3_core", "serve", *options]) as process:
        try:
            found = f"http://127.0.0.1:{port}"
            end = time.monotonic() + 120
            while time.monotonic() < end and process.poll() is None:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{found}/v1/models", timeout=60).close()
                    break
                time.sleep(0.1)
            yield found
        finally:
            process.terminate()


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

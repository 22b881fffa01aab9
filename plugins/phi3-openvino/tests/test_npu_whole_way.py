"""The sample model on the device that runs the NPU pipeline on the CPU, by way of the public interface."""

from __future__ import annotations

import json
import subprocess
import sys

import openvino
import phi3_core as phi3
import pytest
from phi3_core.errors import NoDeviceError, PromptTooLongError
from phi3_openvino.detection import has_npu_plugin

pytestmark = pytest.mark.skipif(not has_npu_plugin(openvino.Core()), reason="OpenVINO has no NPU plugin here")

DEVICE = "openvino:NPU-CPU"
FRANCE = "What is the capital of France?"
SMALL = {"MAX_PROMPT_LEN": "128", "MIN_RESPONSE_LEN": "64"}
"""A shape that a CPU reads in less time than those for users."""


@pytest.fixture(scope="module")
def npu_model(sample_home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3_HOME", str(sample_home))
        with phi3.load("sample", device=DEVICE, precision="fp16", options=SMALL) as loaded:
            yield loaded


def test_it_answers_and_converses(npu_model):
    reply = npu_model.generate(FRANCE)
    assert reply.text == "The capital of France is Paris."
    assert (reply.device, reply.precision, reply.finish_reason) == (DEVICE, "fp16", "stop")
    assert npu_model.context_length == 192
    messages = [
        {"role": "user", "content": FRANCE},
        {"role": "assistant", "content": reply.text},
        {"role": "user", "content": "And of Italy?"},
    ]
    assert npu_model.chat(messages, max_new_tokens=12).text.strip()


def test_the_end_of_the_context_ends_an_answer(npu_model):
    reply = npu_model.generate("Tell me a story about a lighthouse. " * 11, max_new_tokens=1000)
    assert reply.finish_reason == "length"
    assert reply.prompt_tokens + reply.completion_tokens == 192
    with pytest.raises(PromptTooLongError, match=r"and MAX_PROMPT_LEN is 128 \(leave it out"):
        npu_model.generate("word " * 110)
    with pytest.raises(PromptTooLongError, match="holds 192"):
        npu_model.generate("word " * 200)


def test_closing_a_stream_stops_it_and_keeps_it(npu_model):
    stream = npu_model.stream("Tell me a story about a lighthouse.", max_new_tokens=140)
    assert all(next(stream) for _ in range(3))  # a worker has three times as long to stop as its last token took
    worker = npu_model._session.engine.worker
    stream.close()
    assert npu_model._session.engine.worker is worker
    assert worker.alive
    assert "Paris" in npu_model.generate(FRANCE, stop=["."]).text


def test_it_is_used_only_when_it_is_named(sample_store):
    devices = [str(offer.device) for offer in phi3.survey().offers]
    assert DEVICE in devices
    with pytest.raises(NoDeviceError):
        phi3.load("sample", device="npu")


@pytest.mark.slow
def test_from_the_command_line_with_a_long_text(npu_model, sample_store):
    """The first prompt is longer than the smallest shape, and one shape is loaded for it."""
    text = "The lighthouse stood on the cliff, and its keeper lit the lamp every evening. " * 70
    command = [sys.executable, "-m", "phi3_core", "run", "-m", "sample", "-d", DEVICE, "--precision", "fp16", "--json"]
    done = subprocess.run(
        [*command, "--max-new-tokens", "8", "Who lit the lamp?"],
        input=text,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["prompt_tokens"] > 1024
    assert "lighthouse" in found["text"]
    assert "loading the model" not in done.stderr

"""The sample model on ONNX Runtime's CPU, by way of the public interface: real weights, a real worker process."""

from __future__ import annotations

import json

import phi3_core as phi3
import pytest
from phi3_core.errors import UsageError
from phi3_dml import flavours

pytestmark = pytest.mark.runs
FRANCE = "What is the capital of France?"
STORY = "Tell me a story about a lighthouse."


def test_it_answers(model):
    reply = model.generate(FRANCE)
    assert "Paris" in reply.text
    assert reply.finish_reason == "stop"
    assert (reply.device, reply.precision) == ("dml:CPU", "fp16")
    assert model.context_length == 8192


def test_an_execution_provider_of_windows_ml_needs_its_flavour(sample_store, model):
    if flavours.installed().flavour == "winml":
        pytest.skip("it is installed")
    with pytest.raises(UsageError, match="needs Windows ML's flavour"):
        phi3.load("sample", device="dml:CPU", precision="fp16", options={"execution_provider": "QNN"})


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "people": {"type": "integer", "maximum": 99999999}},
    "required": ["city", "people"],
    "additionalProperties": False,
}


def test_an_answer_follows_a_schema(sample_store, model):
    """In this process, with the folder that the model was loaded from."""
    from phi3_core.text.tokenizer import Tokenizer
    from phi3_core.values import Artifact, Device, GenerationRequest
    from phi3_dml import engine

    folder = sample_store / "artifacts" / "sample" / "dml-fp16"
    artifact = Artifact(path=folder, backend="dml", precision="fp16")
    tokenizer = Tokenizer.from_folder(folder)
    prompt = tokenizer.encode("Paris as JSON:")
    loaded = engine.load(artifact, Device(backend="dml", id="CPU", kind="cpu", name="CPU"), {}, "answer")
    request = GenerationRequest(
        prompt_ids=prompt, max_new_tokens=80, json_schema=json.dumps(SCHEMA), stop_ids=tokenizer.stop_ids
    )
    said = tokenizer.decode(list(loaded.generate(request)))
    found = json.loads(said)
    assert set(found) == {"city", "people"}
    assert isinstance(found["people"], int)
    assert list(loaded.generate(request)) == list(loaded.generate(request))

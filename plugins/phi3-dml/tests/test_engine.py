"""The sample model on ONNX Runtime's CPU, by way of the public interface: real weights, a real worker process."""

from __future__ import annotations

import json

import phi3_core as phi3
import pytest
from phi3_core.errors import PromptTooLongError, UsageError
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


def test_greedy_is_repeatable_and_a_kept_prefix_changes_nothing(model):
    first = model.generate(STORY, max_new_tokens=24)
    model.generate("Something else altogether, to fill the cache with.", max_new_tokens=8)
    assert model.generate(STORY, max_new_tokens=24).text == first.text
    assert first.finish_reason == "length"
    assert first.completion_tokens == 24


def test_sampling_follows_its_seed(model):
    def told(seed):
        return model.generate(STORY, max_new_tokens=16, temperature=0.9, top_p=0.95, top_k=50, seed=seed).text

    assert told(1) == told(1)
    assert told(1) != told(2)
    free = {model.generate(STORY, max_new_tokens=16, temperature=1.0).text for _ in range(3)}
    assert len(free) > 1


def test_a_repetition_penalty_changes_what_is_said(model):
    plain = model.generate("Say the word yes ten times.", max_new_tokens=40)
    penalized = model.generate("Say the word yes ten times.", max_new_tokens=40, repetition_penalty=1.8)
    assert plain.text != penalized.text


def test_closing_a_stream_stops_the_engine_and_keeps_it(model):
    stream = model.stream(STORY, max_new_tokens=4000)
    assert next(stream)
    worker = model._session.engine.worker
    stream.close()
    # It has stopped in the two seconds that it is given: else its process would have been killed.
    assert model._session.engine.worker is worker
    assert worker.alive
    assert "Paris" in model.generate(FRANCE).text


def test_a_conversation_goes_on(model):
    messages = [{"role": "user", "content": FRANCE}]
    answer = model.chat(messages).text
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "And of Italy?"}]
    kept = model.chat(messages, max_new_tokens=20).text
    model.generate(STORY, max_new_tokens=4)
    assert model.chat(messages, max_new_tokens=20).text == kept


def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(model):
    with pytest.raises(PromptTooLongError, match=r"the prompt has \d+ tokens.* holds 8192"):
        model.generate("word " * 9000)


def test_an_option_that_is_not_known_is_a_usage_error(sample_store, model):
    with pytest.raises(UsageError, match="dml has no option FOO"):
        phi3.load("sample", device="dml:CPU", precision="fp16", options={"FOO": "1"})


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

"""Logarithmic probabilities and schemas of real answers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import phi3_core as phi3
import pytest
from phi3_core.replies import GenerationSettings

QUESTION = "What is the capital of France?"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "people": {"type": "integer", "maximum": 99}},
    "required": ["city", "people"],
    "additionalProperties": False,
}


def test_they_are_those_of_the_logits(model, sample_home):
    """Of the same graph in one pass, whose rows round differently."""
    from phi3_core.text.tokenizer import Tokenizer

    folder = sample_home / "artifacts" / "sample" / "openvino-int4"
    tokenizer = Tokenizer.from_folder(folder)
    reply = model.generate(QUESTION, max_new_tokens=8, logprobs=3)
    prompt = tokenizer.encode_chat([{"role": "user", "content": QUESTION}])
    said = tokenizer.encode(reply.text)
    with phi3.load("sample", device="openvino:CPU", purpose="answer") as other:
        engine = other._session.engine
        rows = engine.worker.call("logits", limit_s=60, ids=[*prompt, *said], vocabulary=engine.vocabulary)
    rows = rows[len(prompt) - 1 :].astype(np.float64)
    rows -= rows.max(1, keepdims=True)
    expected = rows - np.log(np.exp(rows).sum(1, keepdims=True))
    for token, row, number in zip(reply.logprobs, expected, said, strict=False):
        assert token.logprob == pytest.approx(row[number], abs=0.3)
        assert len(token.top) == 3


def test_answers_are_the_same_with_them(model):
    with phi3.load("sample", device="openvino:CPU", purpose="answer") as alone:
        for each in (model, alone):
            plain = each.generate(QUESTION, max_new_tokens=20)
            scored = each.generate(QUESTION, max_new_tokens=20, logprobs=0)
            assert scored.text == plain.text
            assert len(scored.logprobs) == scored.completion_tokens
            assert plain.logprobs is None


@pytest.mark.parametrize("purpose", ["answer", "conversation"])
def test_a_schema_that_allows_the_answer_does_not_change_it(sample_store, purpose):
    said_before = '{"city": "Paris", "people": 21}'
    with phi3.load("sample", device="openvino:CPU", purpose=purpose) as model:

        def said(**more):
            options: Any = {"max_new_tokens": 40, "stop": ("#",), **more}
            stream = model.complete(f"#{said_before}" * 4 + "#", GenerationSettings.of(options))
            return "".join(stream)

        free = said()
        assert set(json.loads(free)) == {"city", "people"}
        assert said(json_schema=json.dumps(SCHEMA)) == free
        assert said(json_schema="{}", lookup="off") == said(lookup="off")


def test_one_answer_that_cannot_go_on_does_not_end_the_others(model):
    patterns = [{"type": "string", "pattern": f"^.*a.{{{length}}}b.*$"} for length in range(5)]
    hard = json.dumps({"allOf": patterns})

    def ask(schema):
        try:
            return model.generate("Write.", max_new_tokens=30, json_schema=schema).text
        except phi3.UsageError as error:
            return error

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(ask, [json.dumps(SCHEMA), hard, json.dumps(SCHEMA), hard]))
    assert json.loads(found[0]) == json.loads(found[2])
    assert all(isinstance(each, phi3.UsageError) for each in found[1::2])

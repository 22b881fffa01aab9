"""Requests that are processed together, with the sample model and the engine itself."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import phi3_core as phi3
import pytest
from phi3_core.errors import BackendError
from phi3_core.paths import read_json
from phi3_core.values import Artifact, Device, GenerationRequest, Sampling
from phi3_openvino import engine, kv_cache
from tokenizers import Tokenizer

CPU = Device(backend="openvino", id="CPU", kind="cpu", name="CPU")
QUESTIONS = (
    "What is the capital of France?",
    "Tell me a story about a lighthouse.",
    "Write a Python function that reverses a string.",
    "Explain how rain forms.",
    "List three fruits.",
    "Who wrote Hamlet, and when?",
    "Give me a recipe for pancakes.",
    "What is the difference between a lake and a sea?",
)
NOISE = 0.5
"""By how much the logits of two candidates may differ where answers part: activations are rounded to 8 bits, and other
numbers of rows take other kernels."""


@pytest.fixture(scope="module")
def folder(sample_home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3_HOME", str(sample_home))
        phi3.load("sample", device="openvino:CPU").close()
        yield sample_home / "artifacts" / "sample" / "openvino-int4"


@pytest.fixture(scope="module")
def artifact(folder):
    return Artifact(path=folder, backend="openvino", precision="int4", manifest=read_json(folder / "phi3.json"))


@pytest.fixture(scope="module")
def prompts(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    return [tokenizer.encode(text.format(question)).ids for question in QUESTIONS]


@pytest.fixture(scope="module")
def loaded(artifact):
    found = engine.load(artifact, CPU, {}, "conversation")
    yield found
    found.close()


@pytest.fixture(autouse=True)
def all_is_freed(request):
    """After each test nothing of its requests is left: no blocks, no thread."""
    before = threading.active_count()
    yield
    assert threading.active_count() == before
    if "loaded" in request.fixturenames:
        batch = request.getfixturevalue("loaded")._batch
        assert batch._free == request.getfixturevalue("loaded")._loader.cache.blocks
        assert not (batch._active or batch._arrived or batch._cancelled or batch._awaited or batch._led)
        assert batch._pipeline is None or not batch._pipeline.has_non_finished_requests()


def asked(ids, new=24, **sampling):
    return GenerationRequest(prompt_ids=tuple(ids), max_new_tokens=new, sampling=Sampling(**sampling))


def together(loaded, requests):
    """Pull each request's answer in a thread of its own."""
    start = threading.Barrier(len(requests))

    def pull(request):
        start.wait()
        return list(loaded.generate(request))

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(pull, requests))


def gap(loaded, prompt, one, other):
    """The difference of the two candidates' logits where two answers part; 0 if they are the same."""
    for place, (left, right) in enumerate(zip(one, other, strict=True)):
        if left != right:
            row = loaded.logits([*prompt, *one[:place]])[-1]
            return float(abs(row[left] - row[right]))
    return 0.0


def test_eight_at_once_are_answered_as_alone(loaded, prompts):
    alone = [list(loaded.generate(asked(prompt))) for prompt in prompts]
    assert [len(answer) for answer in alone] == [24] * 8
    found = together(loaded, [asked(prompt) for prompt in prompts])
    gaps = [gap(loaded, *items) for items in zip(prompts, alone, found, strict=True)]
    print(gaps)
    assert max(gaps) < NOISE
    assert gaps.count(0.0) >= 4

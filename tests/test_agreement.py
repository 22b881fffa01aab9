"""Different engines, the same ids: phi3-openvino and phi3-dml on the CPU, both in half precision.

They compute in another order, so that their logits differ by rounding; where the two best ids are as good as equal
they may part. The prompts here have no such place, and an engine that is wrong parts at once.
"""

from __future__ import annotations

import contextlib
import importlib.util

import numpy as np
import phi3_core as phi3
import pytest
from phi3_core.plugin import PluginHooks, installed
from phi3_core.store import sidecars
from phi3_core.testing.checkpoints import TINY, write_random
from phi3_core.values import Artifact, Device, GenerationRequest, Recipe, Source

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("phi3_openvino", "phi3_dml", "onnxruntime_genai"))),
    reason="needs both backends: python -m nox -s agreement",
)
PROMPTS = (
    "What is the capital of France?",
    "Name three colours of the rainbow.",
    "Write one sentence about the sea.",
    "def add(a, b):",
    "Translate to German: good morning",
    "How many legs has a spider?",
)
# As its CPU plugin computes by default, but for the cache, which it keeps in eight bits.
EXACT = {"openvino": {"KV_CACHE_PRECISION": "f32", "INFERENCE_PRECISION_HINT": "f32"}, "dml": {}}


@pytest.mark.usefixtures("sample_store")
def test_sample_says_the_same():
    answers = {}
    for backend, options in EXACT.items():
        with phi3.load("sample", device=f"{backend}:CPU", precision="fp16", options=options) as model:
            answers[backend] = [model.generate(prompt, max_new_tokens=32, temperature=0).text for prompt in PROMPTS]
    assert answers["dml"] == answers["openvino"]
    assert "Paris" in answers["dml"][0]


@pytest.mark.parametrize("name", TINY)
def test_every_shape_gives_the_same_ids(tmp_path, name):
    """Also past the sliding window, and across and beyond the length at which longrope's frequencies change, 24."""
    source = Source(path=write_random(tmp_path / "source", TINY[name]), model=name)
    found = {}
    for backend in EXACT:
        with contextlib.closing(load(backend, source, tmp_path / backend)) as engine:
            assert engine.context_length == 96
            found[backend] = {count: ask(backend, engine, count) for count in (5, 20, 30)}
    assert found["dml"] == found["openvino"]
    assert all(len(ids) == 16 for ids in found["dml"].values())


def hooks_of(backend):
    return PluginHooks(next(each for each in installed()[0] if each.name == backend))


def load(backend, source, folder):
    hooks = hooks_of(backend)
    device = Device(backend=backend, id="CPU", kind="cpu", name="CPU")
    folder.mkdir()
    hooks.quantize(source, device, Recipe(precision="fp16"), folder, lambda *_: None)
    sidecars.copy_sidecars(source.path, folder)
    manifest = {"digest": source.model, "recipe": {"precision": "fp16"}}
    artifact = Artifact(path=folder, backend=backend, precision="fp16", manifest=manifest)
    return hooks.load(artifact, device, EXACT[backend], "conversation")


def ask(backend, engine, count):
    prompt = np.random.default_rng(7).integers(3, 320, count).tolist()
    return list(hooks_of(backend).generate(engine, GenerationRequest(prompt_ids=prompt, max_new_tokens=16)))

"""The logits of PyTorch are those of phi3-core's own reference, for each model of the family."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from phi3_core.backend import Checkpoint
from phi3_core.checkpoint.forward import logits
from phi3_core.errors import ModelError, UsageError
from phi3_core.machine import this_machine
from phi3_core.store.sidecars import copy_sidecars
from phi3_core.testing.checkpoints import TINY, write_random
from phi3_core.values import Artifact, GenerationRequest, Offer, Recipe, Refusal, Sampling, Source, no_progress
from phi3_torch import detection, hooks

CPU = next(
    answer.device
    for answer in detection.detect(this_machine())
    if isinstance(answer, Offer) and answer.device.id == "CPU"
)
PROMPT = tuple(int(token) for token in np.random.default_rng(5).integers(3, 320, 20))


def quantize(source, output, **extra):
    output.mkdir()
    recipe = Recipe(precision="fp16", extra=extra)
    hooks.quantize(Source(path=source, model="tiny"), CPU, recipe, output, no_progress)
    copy_sidecars(source, output)
    return Artifact(path=output, backend="torch", precision="fp16")


@pytest.fixture
def make(tmp_path):
    """Makes an artifact of a random checkpoint."""

    def write(dtype="F16", **config):
        return quantize(write_random(tmp_path / "source", config, dtype=dtype), tmp_path / "artifact")

    return write


@pytest.fixture
def engine(make):
    engine = hooks.load(make(max_position_embeddings=600, vocab_size=320), CPU, {}, "conversation", no_progress)
    yield engine
    engine.close()
    engine.close()


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
@pytest.mark.parametrize("name", TINY)
def test_logits_are_those_of_the_reference(make, name, dtype):
    artifact = make(dtype, **TINY[name])
    engine = hooks.load(artifact, CPU, {}, "evaluation", no_progress)
    found = hooks.logits(engine, PROMPT)
    expected = logits(Checkpoint.open(artifact.path), PROMPT)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
    engine.close()


@pytest.mark.parametrize("name", TINY)
def test_an_answer_goes_on_as_the_reference_would(make, name):
    artifact = make(**TINY[name])
    engine = hooks.load(artifact, CPU, {}, "answer", no_progress)
    checkpoint = Checkpoint.open(artifact.path)
    count = min(30, engine.context_length - len(PROMPT))
    ids = list(PROMPT)
    for token in hooks.generate(engine, GenerationRequest(prompt_ids=PROMPT, max_new_tokens=count)):
        row = logits(checkpoint, ids)[-1]
        assert row[token] >= row.max() - 1e-3 * np.ptp(row)
        ids.append(token)
    assert len(ids) == len(PROMPT) + count
    engine.close()


def test_earlier_requests_change_nothing(engine):
    random = np.random.default_rng(1)
    prompts = [tuple(int(token) for token in random.integers(3, 320, size)) for size in (1, 127, 128, 129, 400)]
    prompts.append((*prompts[-1], *prompts[0]))
    requests = [
        GenerationRequest(prompt_ids=prompt, max_new_tokens=20, sampling=sampling)
        for prompt in prompts
        for sampling in (Sampling(), Sampling(temperature=1.0, seed=3))
    ]
    first = [list(engine.generate(request)) for request in requests]
    assert [list(engine.generate(request)) for request in requests] == first
    for request, ids in zip(reversed(requests), reversed(first), strict=True):
        engine.logits(prompts[0])
        assert list(engine.generate(request)) == ids


def test_what_a_failed_call_leaves_is_not_used(engine, monkeypatch):
    request = GenerationRequest(prompt_ids=PROMPT * 10, max_new_tokens=5)
    expected = list(engine.generate(request))
    with pytest.raises(IndexError):  # an id that the embedding does not have
        list(engine.generate(GenerationRequest(prompt_ids=(*PROMPT * 9, 9_999_999), max_new_tokens=5)))
    assert list(engine.generate(request)) == expected


def test_an_output_layer_beside_tied_embeddings_is_used(tmp_path):
    source = write_random(tmp_path / "source", TINY["phi-4"])
    config = source / "config.json"
    config.write_text(config.read_text("utf-8").replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'))
    expected = logits(Checkpoint.open(source), PROMPT)
    engine = hooks.load(quantize(source, tmp_path / "output"), CPU, {}, "evaluation", no_progress)
    np.testing.assert_allclose(engine.logits(PROMPT), expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"num_thread": "2"}, "torch has no option num_thread"), ({"num_threads": "all"}, "number of threads, not 'all'")],
)
def test_options_are_checked(make, options, words):
    with pytest.raises(UsageError, match=words):
        hooks.load(make(), CPU, options, "answer", no_progress)


def test_settings_that_do_not_exist_are_refused(tmp_path):
    with pytest.raises(UsageError, match="torch knows no quantization setting calibration"):
        quantize(write_random(tmp_path / "source", {}), tmp_path / "output", calibration="text.txt")
    assert list((tmp_path / "output").iterdir()) == []


def test_damaged_weights_are_an_error_of_the_model(make):
    artifact = make()
    file = artifact.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError):
        hooks.load(artifact, CPU, {}, "answer", no_progress)


def test_a_missing_library_is_a_refusal(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    (refusal,) = detection.detect(this_machine())
    assert refusal == Refusal(reason="torch is not installed", remedy='pip install "torch>=2.6"')


def test_what_is_declared_is_what_is_asked_for():
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11 to read TOML")
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(detection.REQUIREMENTS.values()) <= set(project["dependencies"])

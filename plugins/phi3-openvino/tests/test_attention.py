"""Which attention an engine reads its prompts with: SDPA starts faster, paged attention reads long ones faster."""

from __future__ import annotations

import numpy as np
import pytest
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.quantization.bit_allocation import RoundingPlan
from phi3_core.testing.checkpoints import TINY, write_random
from phi3_core.values import Artifact, Device, GenerationRequest
from phi3_openvino import engine, graph, weights

CPU = Device(backend="openvino", id="CPU", kind="cpu", name="x")
IDS = tuple(int(token) for token in np.random.default_rng(1).integers(3, 320, 3000))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    settings = {"max_position_embeddings": 4096, "original_max_position_embeddings": 4096}
    source = write_random(tmp_path_factory.mktemp("source"), {**TINY["phi-4"], **settings})
    folder = tmp_path_factory.mktemp("artifact")
    graph.write(Checkpoint.open(source), RoundingPlan(), folder / weights.IR)
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    return Artifact(path=folder, backend="openvino", precision="fp16", manifest={"digest": "x", "recipe": {}})


def kept_model(home):
    """Whether the compiled model was kept, as it is with SDPA alone on CPUs."""
    return any(home.rglob("*.blob"))


def ask(loaded, tokens):
    return list(loaded.generate(GenerationRequest(prompt_ids=IDS[:tokens], max_new_tokens=2)))


@pytest.mark.parametrize(
    ("purpose", "prompt_tokens", "options", "sdpa"),
    [
        ("answer", None, {}, True),
        ("answer", 20, {}, True),
        ("answer", 1023, {}, True),
        ("answer", 1024, {}, False),
        ("answer", 3000, {"ATTENTION_BACKEND": "SDPA"}, True),
        ("answer", 20, {"ATTENTION_BACKEND": "PA"}, False),
        ("conversation", 20, {}, False),
    ],
)
def test_the_attention_fits_the_expected_prompt(artifact, home, caplog, purpose, prompt_tokens, options, sdpa):
    loaded = engine.load(artifact, CPU, options, purpose, prompt_tokens)
    assert kept_model(home) == sdpa
    assert len(ask(loaded, prompt_tokens or 20)) == 2
    assert caplog.messages == []  # it is loaded once


def test_a_prompt_of_an_unexpected_length_is_answered(artifact, home, caplog):
    loaded = engine.load(artifact, CPU, {}, "answer")
    assert kept_model(home)
    ask(loaded, 2047)  # loading again would take longer
    assert caplog.messages == []
    long = ask(loaded, 3000)
    assert caplog.messages == ["3000 tokens of text: loading the model's form for longer ones"]
    ask(loaded, 20)
    assert len(caplog.messages) == 1
    assert long == ask(engine.load(artifact, CPU, {}, "answer", 3000), 3000)


def test_the_attention_that_a_user_chose_stays(artifact, home, caplog):
    loaded = engine.load(artifact, CPU, {"ATTENTION_BACKEND": "SDPA"}, "answer")
    assert len(ask(loaded, 3000)) == 2
    assert caplog.messages == []

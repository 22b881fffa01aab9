"""Our graph on OpenVINO's CPU, for every shape of the family, against core's reference forward pass."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai
import pytest
import quantizing_checks
from attrs import evolve
from openvino._offline_transformations import paged_attention_transformation
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.forward import logits
from phi3_core.quantization.bit_allocation import RoundingPlan
from phi3_core.quantization.scales import Scheme
from phi3_core.testing.checkpoints import TINY, write_random
from phi3_core.testing.rounding import round_weight
from phi3_openvino import graph

EXACT: dict[str, Any] = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}
IDS: Any = np.random.default_rng(1).integers(3, 320, 64)
# Kept: on Windows a core that goes unloads its plugins, and with them the code of the nodes that they made.
CORE = ov.Core()
LONGROPE = [name for name in TINY if "rope_scaling" in TINY[name]]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """One of every shape. Not to be changed."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {name: Checkpoint.open(write_random(folder / name, TINY[name])) for name in TINY}


@pytest.fixture
def build(tmp_path):
    """Write a graph, and read it back."""

    def build(checkpoint, **schemes):
        path = Path(tempfile.mkdtemp(dir=tmp_path), "model.xml")
        graph.write(checkpoint, RoundingPlan(**schemes), path)
        return CORE.read_model(path)

    return build


class Runner:
    """A compiled graph with its cache."""

    def __init__(self, model):
        self.compiled = CORE.compile_model(model, "CPU", EXACT)
        self.request = self.compiled.create_infer_request()

    def __call__(self, ids, past=0, mask=None, positions=None):
        ids = np.atleast_2d(ids)
        tokens = ids.shape[1]
        inputs = {
            "input_ids": ids,
            "attention_mask": np.ones((len(ids), past + tokens), np.int64) if mask is None else mask,
            "position_ids": np.tile(np.arange(past, past + tokens), (len(ids), 1)) if positions is None else positions,
            "beam_idx": np.arange(len(ids), dtype=np.int32),
        }
        return self.request.infer(inputs)["logits"].copy()


def close(found, expected, tolerance=1e-4):
    """Within a share of the logits' range."""
    return np.abs(found - expected).max() <= tolerance * np.ptp(expected)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("tokens", [1, 24, 25, 64], ids=lambda tokens: f"{tokens} tokens")
def test_it_is_the_reference(checkpoints, build, name, tokens):
    """Also past the sliding window, and on both sides of longrope's original context of 24."""
    checkpoint = checkpoints[name]
    assert close(Runner(build(checkpoint))(IDS[:tokens])[0], logits(checkpoint, IDS[:tokens]))


@pytest.mark.parametrize("name", TINY)
def test_with_a_cache_it_is_the_same(checkpoints, build, name):
    """A prompt in two pieces, then token by token; longrope beyond its original context from the start."""
    checkpoint = checkpoints[name]
    run = Runner(build(checkpoint))
    first = 25 if name in LONGROPE else 9
    pieces = [(0, first), (first, 40), *((place, place + 1) for place in range(40, 48))]
    found = np.concatenate([run(IDS[start:stop], start)[0] for start, stop in pieces])
    assert close(found, logits(checkpoint, IDS[:48]))


@pytest.mark.parametrize("name", TINY)
def test_padding_on_the_left_changes_nothing(checkpoints, build, name):
    checkpoint = checkpoints[name]
    ids = np.stack([np.r_[[0] * 5, IDS[:25]], IDS[25:55]])
    mask = (np.arange(30) >= [[5], [0]]).astype(np.int64)
    found = Runner(build(checkpoint))(ids, mask=mask, positions=np.maximum(mask.cumsum(1) - 1, 0))
    assert close(found[0, 5:], logits(checkpoint, IDS[:25]))
    assert close(found[1], logits(checkpoint, IDS[25:55]))


@pytest.mark.parametrize("window", [2047, None])
def test_beyond_a_window_and_a_context_of_real_size(tmp_path, build, window):
    config = {"num_hidden_layers": 1, "max_position_embeddings": 8192, "sliding_window": window}
    checkpoint = Checkpoint.open(write_random(tmp_path / "long", config))
    ids: Any = np.random.default_rng(2).integers(3, 320, 4200)
    found = Runner(build(checkpoint))(ids)[0]
    expected = logits(checkpoint, ids)
    assert close(found, expected)
    other = Checkpoint.open(write_random(tmp_path / "other", {**config, "sliding_window": 2046}))
    assert not close(found, logits(other, ids), 1e-6)


def test_longrope_of_real_size(tmp_path, build):
    settings = {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096}
    checkpoint = Checkpoint.open(write_random(tmp_path, {**TINY["phi-4-mini"], "num_hidden_layers": 1, **settings}))
    run = Runner(build(checkpoint))
    ids: Any = np.random.default_rng(2).integers(3, 320, 4097)
    for tokens in (4096, 4097):
        run.request.reset_state()
        assert close(run(ids[:tokens])[0], logits(checkpoint, ids[:tokens]))


@pytest.mark.parametrize("backend", ["PA", "SDPA"])
@pytest.mark.parametrize("name", TINY)
def test_both_attention_backends_of_genai_answer_as_the_reference(checkpoints, build, tmp_path, name, backend):
    """Greedy, past the window; prompts of longrope models lie beyond the original context."""
    checkpoint = checkpoints[name]
    ov.save_model(build(checkpoint), tmp_path / "openvino_model.xml", compress_to_fp16=False)
    (tmp_path / "config.json").write_bytes((checkpoint.path / "config.json").read_bytes())
    pipeline = openvino_genai.LLMPipeline(tmp_path, "CPU", ATTENTION_BACKEND=backend, **EXACT)
    settings = openvino_genai.GenerationConfig(max_new_tokens=12, ignore_eos=True, do_sample=False)
    prompt = [int(token) for token in IDS[:30]]
    expected = list(prompt)
    for _ in range(12):
        expected.append(int(logits(checkpoint, expected)[-1].argmax()))
    inputs = openvino_genai.TokenizedInputs(
        ov.Tensor(np.array([prompt], np.int64)), ov.Tensor(np.ones((1, 30), np.int64))
    )
    assert list(pipeline.generate(inputs, settings).tokens[0]) == expected[30:]


@pytest.mark.parametrize("name", ["phi-3-mini-4k", "phi-3-medium"])
def test_the_paged_backend_finds_the_window(checkpoints, build, name):
    model = build(checkpoints[name])
    paged_attention_transformation(model)
    attention = next(node for node in model.get_ops() if node.get_type_name() == "PagedAttentionExtension")
    factors = [value.get_node() for value in attention.input(10).get_source_output().get_node().input_values()]
    assert [int(factors[1].data), int(factors[0].input(0).get_source_output().get_node().data)] == [
        -1,
        -TINY[name]["sliding_window"],
    ]


@pytest.mark.parametrize("scheme", [Scheme(bits=8), Scheme(bits=8, symmetric=False)], ids=["i8", "u8"])
@pytest.mark.parametrize(
    "low",
    [Scheme(bits=4, symmetric=symmetric, group_size=size) for symmetric in (True, False) for size in (32, 64, -1)],
    ids=str,
)
def test_rounded_weights_are_read_as_core_wrote_them(checkpoints, build, scheme, low):
    checkpoint = checkpoints["phi-3-medium"]
    schemes = {weight.name: low for weight in checkpoint.linear}
    schemes |= {weight.name: scheme for weight in (checkpoint.embedding, checkpoint.head)}
    run = Runner(build(checkpoint, schemes=schemes))
    assert close(run(IDS)[0], rounded_logits(checkpoint, schemes, IDS), 2e-3)
    sizes = {weight.shape for weight in (checkpoint.head, *checkpoint.linear)}
    outputs = [node.output(0) for node in run.compiled.get_runtime_model().get_ops() if node.get_output_size()]
    stored = [output for output in outputs if output.partial_shape.is_static and tuple(output.shape) in sizes]
    assert {output.element_type.get_type_name() for output in stored} == {
        {True: "i", False: "u"}[low.symmetric] + "4",
        {True: "i", False: "u"}[scheme.symmetric] + "8",
    }


def rounded_logits(checkpoint, schemes, ids):
    """The reference's logits with rounded weights, the embedding among them."""
    rounded = {
        weight.name: round_weight(weight, schemes[weight.name]).dequantize()
        for weight in (checkpoint.embedding, checkpoint.head, *checkpoint.linear)
    }
    embedding = evolve(checkpoint.embedding, raw=rounded[checkpoint.embedding.name], dtype="F32")
    return logits(evolve(checkpoint, embedding=embedding), ids, replace=lambda weight: rounded[weight.name])


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_other_stored_types_become_halves(tmp_path, build, dtype):
    checkpoint = Checkpoint.open(write_random(tmp_path / dtype, TINY["phi-4-mini"], dtype=dtype))
    assert close(Runner(build(checkpoint))(IDS)[0], logits(checkpoint, IDS), 1e-2)


@pytest.mark.parametrize("name", TINY)
def test_balancing_alone_changes_nothing(checkpoints, build, name):
    """Factors on the inputs of three layers, taken back by the norms and by the rows of ``up``; 8 bits lose little."""
    checkpoint = checkpoints[name]
    model = build(checkpoint, **quantizing_checks.balancing(checkpoint, Scheme(bits=8)))
    expected = logits(checkpoint, IDS)
    assert np.std(Runner(model)(IDS)[0] - expected) < 0.05 * np.std(expected)

"""Our graphs on ONNX Runtime's CPU provider, both layouts, for every shape, against core's reference forward pass."""

from __future__ import annotations

import numpy as np
import pytest
import quantizing_checks
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.forward import logits
from phi3_core.quantization.scales import Scheme
from phi3_core.testing.checkpoints import TINY, write_random
from phi3_core.testing.rounding import round_weight
from phi3_dml import layouts

pytestmark = pytest.mark.runs
LAYOUTS = pytest.mark.parametrize("layout", [layouts.CPU, layouts.DIRECTML], ids=lambda layout: layout.name or "cpu")
LONGROPE = [name for name in TINY if "rope_scaling" in TINY[name]]


class Runner:
    """A graph in a session of ONNX Runtime, and its cache."""

    def __init__(self, folder, shape):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", options, ["CPUExecutionProvider"])
        self.types = {port.name: port.type for port in self.session.get_inputs()}
        self.layers = shape.layers
        kind = np.float16 if self.types["past_key_values.0.key"] == "tensor(float16)" else np.float32
        self.cache = {
            f"past_key_values.{index}.{part}": np.zeros((1, shape.key_value_heads, 0, shape.head_size), kind)
            for index in range(shape.layers)
            for part in ("key", "value")
        }

    def __call__(self, ids, past=0):
        feed = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, past + len(ids)), np.int64),
            "position_ids": np.arange(past, past + len(ids))[None],
            **self.cache,
        }
        names = ["logits", *(name.replace("past_key_values", "present") for name in self.cache)]
        found = self.session.run(names, {name: feed[name] for name in feed if name in self.types})
        self.cache = dict(zip(self.cache, found[1:], strict=True))
        return found[0][0].astype(np.float32)


def close(found, expected, layout, tolerance=1e-5):
    """Within a share of the logits' range; halves have three digits."""
    return np.abs(found - expected).max() <= (4e-3 if layout.float16 else tolerance) * np.ptp(expected)


@LAYOUTS
@pytest.mark.parametrize("name", TINY)
def test_it_is_the_reference(checkpoints, write_graph, ids, layout, name):
    """Also past the sliding window, and on both sides of longrope's original context of 24."""
    checkpoint = checkpoints[name]
    folder = write_graph(checkpoint, layout)
    for tokens in (1, 24, 25, 64):
        found = Runner(folder, checkpoint.architecture)(ids[:tokens])
        assert close(found, logits(checkpoint, ids[:tokens]), layout), tokens


@LAYOUTS
@pytest.mark.parametrize("name", TINY)
def test_with_a_cache_it_is_the_same(checkpoints, write_graph, ids, layout, name):
    """A prompt, then token by token; longrope beyond its original context from the start."""
    checkpoint = checkpoints[name]
    run = Runner(write_graph(checkpoint, layout), checkpoint.architecture)
    first = 25 if name in LONGROPE else 9
    pieces = [(0, first), *((place, place + 1) for place in range(first, 40))]
    found = np.concatenate([run(ids[start:stop], start) for start, stop in pieces])
    assert close(found, logits(checkpoint, ids[:40]), layout)


def test_beyond_a_window_of_real_size(tmp_path, write_graph):
    config = {"num_hidden_layers": 1, "max_position_embeddings": 4096, "sliding_window": 2047}
    checkpoint = Checkpoint.open(write_random(tmp_path / "long", config))
    ids = np.random.default_rng(2).integers(3, 320, 2300).tolist()
    found = Runner(write_graph(checkpoint, layouts.CPU), checkpoint.architecture)(ids)
    assert close(found, logits(checkpoint, ids), layouts.CPU)
    other = Checkpoint.open(write_random(tmp_path / "other", {**config, "sliding_window": 2046}))
    assert not close(found, logits(other, ids), layouts.CPU, 1e-7)


def test_longrope_of_real_size(tmp_path, write_graph):
    """Heads of 128, three quarters of which turn: what the CPU's attention does by itself."""
    settings = {
        "hidden_size": 256,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 1,
        "max_position_embeddings": 8192,
        "original_max_position_embeddings": 4096,
    }
    checkpoint = Checkpoint.open(write_random(tmp_path, {**TINY["phi-4-mini"], **settings}))
    folder = write_graph(checkpoint, layouts.CPU)
    ids = np.random.default_rng(2).integers(3, 320, 4097).tolist()
    for tokens in (4096, 4097):
        found = Runner(folder, checkpoint.architecture)(ids[:tokens])
        assert close(found, logits(checkpoint, ids[:tokens]), layouts.CPU)
    assert layouts.is_fused(checkpoint.architecture, layouts.CPU)


@LAYOUTS
@pytest.mark.parametrize(
    "scheme",
    [
        Scheme(bits=bits, symmetric=symmetric, group_size=size)
        for bits in (4, 8)
        for symmetric in (True, False)
        for size in (32, 64)
    ],
    ids=str,
)
def test_rounded_weights_are_read_as_core_wrote_them(checkpoints, write_graph, ids, layout, scheme):
    checkpoint = checkpoints["phi-3-medium"]
    weights = (checkpoint.head, *checkpoint.linear)
    folder = write_graph(checkpoint, layout, schemes=dict.fromkeys((weight.name for weight in weights), scheme))
    rounded = {weight.name: round_weight(weight, scheme).dequantize() for weight in weights}
    expected = logits(checkpoint, ids, replace=lambda weight: rounded[weight.name])
    found = Runner(folder, checkpoint.architecture)(ids)
    # The CPU's kernels round the inputs to 8 bits; with the wrong zero point or nibble nothing would be alike.
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
@LAYOUTS
def test_other_stored_types_become_halves(tmp_path, write_graph, ids, layout, dtype):
    checkpoint = Checkpoint.open(write_random(tmp_path / dtype, TINY["phi-4"], dtype=dtype))
    found = Runner(write_graph(checkpoint, layout), checkpoint.architecture)(ids)
    assert close(found, logits(checkpoint, ids), layout, 1e-2)


@LAYOUTS
@pytest.mark.parametrize("name", TINY)
def test_balancing_alone_changes_nothing(checkpoints, write_graph, ids, layout, name):
    """Factors on the inputs of three layers, taken back by the norms and by the rows of ``up``.

    8 bits lose little, of which rounded inputs are the larger part; a factor that is not taken back loses everything.
    """
    checkpoint = checkpoints[name]
    folder = write_graph(checkpoint, layout, **quantizing_checks.balancing(checkpoint, Scheme(bits=8, group_size=32)))
    expected = logits(checkpoint, ids)
    assert np.std(Runner(folder, checkpoint.architecture)(ids) - expected) < 0.1 * np.std(expected)

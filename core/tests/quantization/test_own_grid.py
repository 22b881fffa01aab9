"""Weights that were quantized already keep their integers and scales where a scheme holds them."""

from __future__ import annotations

import gguf_files
import numpy as np
import pytest
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.errors import ModelError
from phi3_core.quantization.recipes import RoundingSettings, own_group_size
from phi3_core.quantization.rounding import round_blocks
from phi3_core.quantization.scales import Scheme
from phi3_core.testing.checkpoints import TINY, write_random

Q4_0, Q8_0 = Scheme(bits=4, group_size=32), Scheme(bits=8, group_size=32)


@pytest.fixture
def make(tmp_path):
    """Makes a checkpoint of a GGUF file; ``kind`` returns the type of the tensor of a name."""

    def make(kind, architecture="phi3"):
        source = write_random(tmp_path / "source", {**TINY["phi-3-medium"], "sliding_window": None}, dtype="F32")
        llama = architecture == "llama"
        tensors = gguf_files.tensors_of(source, fused=not llama, permuted=llama, kind=kind)
        metadata = gguf_files.metadata_of(source, architecture) | gguf_files.sentencepiece(size=320)
        file = gguf_files.write(tmp_path / "m.gguf", architecture, metadata, tensors)
        return Checkpoint.open(gguf_files.linked(file, tmp_path / "folder"))

    return make


def plan_of(checkpoint, scheme, calibration=None):
    stages = []
    settings = RoundingSettings(linear=scheme, ratio=1, calibration=calibration)
    plan = settings.plan(
        checkpoint,
        outer=(checkpoint.embedding, checkpoint.head),
        int8_scheme=lambda _: Scheme(bits=8),
        progress=lambda stage, *_: stages.append(stage),
    )
    return plan, stages


@pytest.mark.parametrize("architecture", ["phi3", "llama"])
@pytest.mark.parametrize(("kind", "scheme"), [("Q4_0", Q4_0), ("Q8_0", Q8_0)])
def test_the_values_are_kept(make, architecture, kind, scheme):
    checkpoint = make(lambda _: kind, architecture)
    assert own_group_size(checkpoint.linear, scheme.bits) == 32
    plan, stages = plan_of(checkpoint, scheme)
    assert "reading the text" not in "".join(stages), "there is nothing to calibrate for"
    for weight in checkpoint.linear:
        importance, factors = plan.importance.get(weight.name), plan.factors.get(weight.name)
        for rows, part in round_blocks(weight, plan.schemes[weight.name], importance, factors=factors):
            assert np.array_equal(part.dequantize(), weight.float32(rows))
            assert part.values.dtype == np.int8


def test_integers_are_packed_as_those_that_were_rounded(make):
    checkpoint = make(lambda _: "Q4_0")
    weight = checkpoint.layers[0].down
    (_, packed), (_, plain) = (next(round_blocks(weight, Q4_0, pack=pack)) for pack in (True, False))
    low, high = packed.values & 15, packed.values >> 4
    assert np.array_equal(np.stack([low, high], axis=-1).reshape(plain.values.shape), plain.values.view(np.uint8) & 15)


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        ("Q4_0", Scheme(bits=4, group_size=64)),
        ("Q4_0", Scheme(bits=4, group_size=32, symmetric=False)),
        ("Q4_0", Q8_0),
        ("Q8_0", Q4_0),
        ("Q4_1", Q4_0),
        (None, Q4_0),
    ],
)
def test_what_a_scheme_does_not_hold_is_rounded(make, kind, scheme):
    checkpoint = make(lambda _: kind)
    weight = checkpoint.layers[0].down
    assert not scheme.holds(weight)
    assert own_group_size(checkpoint.linear, 4) == (32 if kind == "Q4_0" else None)
    rows, part = next(round_blocks(weight, scheme))
    assert np.abs(part.dequantize() - weight.float32(rows)).max() > 0


@pytest.mark.parametrize("kept", ["ffn_up", "ffn_down", "attn_qkv"])
def test_only_the_other_weights_are_balanced(make, kept):
    """What a file of mixed types has on a grid stays, and its neighbours are rounded as if it were not there."""
    checkpoint = make(lambda name: "Q4_0" if kept in name else "Q4_1")
    plan, _ = plan_of(checkpoint, Q4_0)
    layer = checkpoint.layers[0]
    held = {"ffn_up": layer.gate_up, "ffn_down": layer.down, "attn_qkv": layer.qkv}[kept]
    assert Q4_0.holds(held)
    assert held.name not in plan.importance
    assert held.name not in plan.factors
    assert np.array_equal(plan.norm(layer.post_norm, layer.gate_up), layer.post_norm.float32()) == (kept == "ffn_up")
    assert (plan.factors == {}) == (kept in {"ffn_up", "ffn_down"})
    if kept == "ffn_up":
        assert plan.importance[layer.down.name].balance is None, "its balance would change the rows of up"
    rows, part = next(round_blocks(held, Q4_0, plan.importance.get(held.name)))
    assert np.array_equal(part.dequantize(), held.float32(rows))


def test_scales_that_are_not_finite_are_named(make):
    checkpoint = make(lambda _: "Q4_0")
    weight = checkpoint.layers[0].down
    broken = weight.stacked[0].raw.copy()
    broken[3, :2] = 0xFF, 0x7F
    object.__setattr__(weight.stacked[0], "raw", broken)
    with pytest.raises(ModelError, match="has values that are not finite"):
        list(round_blocks(weight, Q4_0))

"""What quantizing writes, chooses and refuses; that it answers like the original is in ``test_families.py``."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import quantizing_checks
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.errors import UsageError
from phi3_core.quantization.calibration import calibrate
from phi3_core.store import sidecars
from phi3_core.testing.checkpoints import TINY, write_random
from phi3_core.values import Device, Recipe, Source
from phi3_npu import quantization, weights
from safetensors.numpy import load_file

NPU = Device(backend="npu", id="NPU", kind="npu", name="NPU")
KINDS = {"qkv_proj": "qkv", "o_proj": "output", "gate_up_proj": "gate_up", "down_proj": "down"}


def quiet(*_, **__):
    pass


@pytest.fixture
def make(tmp_path):
    """Quantize a tiny model with a calibration of its own; give the tensors."""

    def make(config=None, *, dtype="F16", calibration=True, **recipe):
        source, output = tmp_path / "model", tmp_path / "output"
        for folder in (source, output):
            shutil.rmtree(folder, ignore_errors=True)
        write_random(source, config or TINY["phi-3-medium"], dtype=dtype)
        output.mkdir()
        if calibration:
            calibrate(Checkpoint.open(source), [list(range(5, 45))]).save(tmp_path / "calibration.npz")
            recipe["extra"] = {"calibration": str(tmp_path / "calibration.npz")}
        quantization.quantize(Source(path=source, model="tiny"), NPU, Recipe(**recipe), output, quiet)
        sidecars.copy_sidecars(source, output)  # as core does
        assert {path.name for path in output.iterdir()} == {weights.FILE, "config.json"}
        assert weights.recognize(output) == recipe["precision"]
        return load_file(output / weights.FILE)

    return make


def types(tensors):
    """The type of each kind of linear layer."""
    found = {name.rsplit(".", 2)[-2]: values.dtype.name for name, values in tensors.items() if name.endswith("weight")}
    return {KINDS.get(name, name): kind for name, kind in found.items() if name in KINDS or name == "lm_head"}


def test_precisions(make):
    linear = ("qkv", "output", "gate_up", "down")
    assert types(make(precision="fp16")) == {**dict.fromkeys(linear, "float16"), "lm_head": "float16"}
    assert types(make(precision="int8")) == {**dict.fromkeys(linear, "int8"), "lm_head": "int8"}
    assert types(make(precision="int4")) == {**dict.fromkeys(linear, "uint8"), "lm_head": "int8"}


@pytest.mark.parametrize(
    ("ratio", "wide"),
    [
        (0.99, {"down"}),
        (0.8, {"down"}),
        (0.7, {"down", "output"}),
        (0.6, {"down", "output", "qkv"}),
        (0.0, {"down", "output", "qkv", "gate_up"}),
    ],
)
def test_beyond_the_ratio_kinds_of_layers_get_eight_bits(make, ratio, wide):
    found = types(make(precision="int4", ratio=ratio))
    assert {kind for kind in KINDS.values() if found[kind] == "int8"} == wide


def test_the_kernels_of_one_shape_have_one_number_of_bits(make):
    """The library tells kernels apart by shape only."""
    square = {**TINY["phi-4"], "intermediate_size": 64, "num_key_value_heads": 4}  # down and output are 64 by 64
    assert types(make(square, precision="int4", ratio=0.95))["down"] == "uint8"
    head = {**TINY["phi-4"], "vocab_size": 256}  # as many outputs as gate and up
    assert types(make(head, precision="int4"))["lm_head"] == "float16"


def test_what_was_tied_is_written_apart_where_it_is_rounded(make):
    tied = TINY["phi-4-mini"]
    half, byte = make(tied, precision="fp16"), make(tied, precision="int8")
    assert "lm_head.weight" not in half
    assert byte["lm_head.weight"].dtype == np.int8
    assert byte["model.embed_tokens.weight"].dtype == np.float16
    read = byte["lm_head.weight"].astype(np.float32) * byte["lm_head.scale"].astype(np.float32)
    assert np.abs(read - half["model.embed_tokens.weight"].astype(np.float32)).max() < 0.01


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_rounded_weights_times_what_was_divided_are_the_original(make, tmp_path, dtype):
    tensors = make(precision="int4", dtype=dtype)
    checkpoint = Checkpoint.open(tmp_path / "model")
    layer = checkpoint.layers[1]
    prefix = "model.layers.1."
    packed = tensors[f"{prefix}self_attn.qkv_proj.weight"]
    low, high = (packed & 15).astype(np.int8), (packed >> 4).astype(np.int8)
    integers = np.stack([low, high], axis=2).reshape(len(packed), -1)
    integers[integers > 7] -= 16
    balance = layer.input_norm.float32() / tensors[f"{prefix}input_layernorm.weight"]
    assert np.ptp(balance) > 0.01  # something was balanced
    read = integers * tensors[f"{prefix}self_attn.qkv_proj.scale"].astype(np.float32) / balance
    original = layer.qkv.float32()
    assert np.square(read - original).mean() < 0.03 * np.square(original).mean()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"precision": "int4", "group_size": 64}, "npu:NPU takes one scale per channel, no groups of 64"),
        ({"precision": "int4", "symmetric": False}, "npu:NPU takes symmetric weights only"),
        ({"precision": "int8", "ratio": 0.5}, "a ratio of 0.5 needs int4"),
    ],
)
def test_refused_before_the_work(make, tmp_path, recipe, message):
    with pytest.raises(UsageError, match=message):
        make(calibration=False, **recipe)
    assert not list((tmp_path / "output").iterdir())


def test_too_little_disk_or_memory_is_said_with_the_figures(make, monkeypatch):
    def make_8_bits():
        make(precision="int8")

    quantizing_checks.check_resources_are_said(make_8_bits, monkeypatch, disk=r"\d+\.\d", memory=r"3\d\d\.\d")


@pytest.mark.parametrize("name", TINY)
def test_a_gguf_file_gives_what_its_checkpoint_gives(tmp_path, name):
    quantizing_checks.check_gguf(quantization.quantize, NPU, name, weights.FILE, tmp_path)

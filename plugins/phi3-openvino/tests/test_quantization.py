"""The hook's work as a whole: a folder that loads, choices made, and refusals before any work."""

from __future__ import annotations

import shutil

import numpy as np
import openvino as ov
import pytest
import quantizing_checks
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.errors import UsageError
from phi3_core.store import sidecars
from phi3_core.testing.checkpoints import TINY
from phi3_core.values import Device, Recipe
from phi3_openvino import quantization

CPU = Device(backend="openvino", id="CPU", kind="cpu", name="CPU")
NPU = Device(backend="openvino", id="NPU", kind="npu", name="NPU")


@pytest.fixture
def source(tmp_path):
    return quantizing_checks.tiny_source(tmp_path / "model")


@pytest.fixture
def make(source, tmp_path):
    """Quantize, and give the kinds of constants in the model with how many values each has."""

    def make(device=CPU, **recipe):
        output = tmp_path / "output"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        stages = []
        quantization.quantize(
            source, device, Recipe(**recipe), output, lambda stage, done=None, total=None: stages.append(stage)
        )
        assert stages[-1] in {"rounding weights", "preparing weights"}
        sidecars.copy_sidecars(source.path, output)  # as core does
        assert {path.name for path in output.iterdir()} == {
            "openvino_model.xml",
            "openvino_model.bin",
            "config.json",
            "tokenizer.json",
        }
        model = ov.Core().read_model(output / "openvino_model.xml")
        sizes: dict[str, int] = {}
        for node in model.get_ops():
            if node.get_type_name() == "Constant" and node.get_friendly_name().endswith("weight"):
                kind = node.output(0).get_element_type().get_type_name()
                sizes[kind] = sizes.get(kind, 0) + int(np.prod(list(node.output(0).get_shape())))
        return sizes, output

    return make


def total(source, *, outer):
    checkpoint = Checkpoint.open(source.path)
    weights = (checkpoint.embedding, checkpoint.head) if outer else checkpoint.linear
    return sum(weight.raw.size for weight in weights)


def test_precisions(make, source):
    linear, outer = total(source, outer=False), total(source, outer=True)
    assert make(precision="fp16")[0] == {"f16": linear + outer}
    assert make(precision="int8")[0] == {"i8": linear + outer}
    assert make(precision="int8", symmetric=False)[0] == {"u8": linear, "i8": outer}
    assert make(precision="int4")[0] == {"i4": linear, "i8": outer}
    assert make(precision="int4", symmetric=False, group_size=32)[0] == {"u4": linear, "i8": outer}


def test_a_ratio_leaves_the_rest_in_8_bits(make, source):
    linear = total(source, outer=False)
    sizes, _ = make(precision="int4", ratio=0.6)
    assert 0.3 * linear < sizes["i4"] <= 0.6 * linear
    assert sizes["i4"] + sizes["i8"] == linear + total(source, outer=True)


def test_calibration_by_default_by_file_and_not_at_all(make, source, tmp_path, monkeypatch):
    quantizing_checks.check_calibrations(make, source, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("device", "recipe", "message"),
    [
        (CPU, {"precision": "int4", "group_size": 48}, "groups of 48 do not divide the 128 inputs"),
        (CPU, {"precision": "int8", "group_size": 64}, "int8 has no groups of 64"),
        (CPU, {"precision": "fp16", "ratio": 0.5}, "a ratio of 0.5 needs int4"),
        (NPU, {"precision": "int4", "symmetric": False}, "openvino:NPU takes symmetric weights only"),
        (NPU, {"precision": "int4", "ratio": 0.6}, "one precision throughout"),
        (NPU, {"precision": "int4", "group_size": 64}, "openvino:NPU takes no groups of 64"),
    ],
)
def test_refused_before_the_work(source, tmp_path, device, recipe, message):
    output = tmp_path / "output"
    output.mkdir()
    with pytest.raises(UsageError, match=message):
        quantization.quantize(source, device, Recipe(**recipe), output, lambda *_, **__: None)
    assert not list(output.iterdir())


def test_what_the_npu_gets(make, source):
    linear, outer = total(source, outer=False), total(source, outer=True)
    assert make(NPU, precision="int4")[0] == {"i4": linear, "i8": outer}
    assert make(NPU, precision="int4", group_size=-1)[0] == {"i4": linear, "i8": outer}


def test_too_little_disk_or_memory_is_said_with_the_figures(source, tmp_path, monkeypatch):
    def make():
        quantization.quantize(source, CPU, Recipe(precision="int4"), tmp_path, lambda *_, **__: None)

    quantizing_checks.check_resources_are_said(make, monkeypatch, disk=r"67\.\d", memory=r"6\d\d\.\d")


@pytest.mark.parametrize("name", TINY)
def test_a_gguf_file_gives_what_its_checkpoint_gives(tmp_path, name):
    quantizing_checks.check_gguf(quantization.quantize, CPU, name, "openvino_model.bin", tmp_path)

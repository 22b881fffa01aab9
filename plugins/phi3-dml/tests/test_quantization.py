"""The hook's work as a whole: a folder that loads, choices made, and refusals before any work."""

from __future__ import annotations

import shutil

import pytest
import quantizing_checks
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.errors import UsageError
from phi3_core.store import sidecars
from phi3_core.testing.checkpoints import TINY
from phi3_core.values import Device, Recipe
from phi3_dml import quantization, weights
from phi3_dml.onnx import reader, writer

CPU = Device(backend="dml", id="CPU", kind="cpu", name="CPU")
GPU = Device(backend="dml", id="0", kind="dgpu", name="GPU")


@pytest.fixture
def source(tmp_path):
    return quantizing_checks.tiny_source(tmp_path / "model")


@pytest.fixture
def make(source, tmp_path):
    """Quantize, and give how many weights have how many bits, and the folder."""

    def make(device=CPU, **recipe):
        output = tmp_path / "output"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        stages = []
        quantization.quantize(
            source, device, Recipe(**recipe), output, lambda stage, done=None, total=None: stages.append(stage)
        )
        assert stages[-1] == "writing the model"
        sidecars.copy_sidecars(source.path, output)  # as core does
        assert {path.name for path in output.iterdir()} == {
            "model.onnx",
            "model.onnx.data",
            "genai_config.json",
            "config.json",
            "tokenizer.json",
        }
        assert weights.recognize(output) == recipe["precision"]
        return reader.read(output / "model.onnx").bits, output

    return make


@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
def test_precisions(make, source, device):
    checkpoint = Checkpoint.open(source.path)
    linear, head = sum(weight.raw.size for weight in checkpoint.linear), checkpoint.head.raw.size
    assert make(device, precision="fp16")[0] == {}
    assert make(device, precision="int8")[0] == {8: linear + head}
    assert make(device, precision="int4")[0] == {4: linear, 8: head}
    assert make(device, precision="int4", symmetric=False, group_size=64)[0] == {4: linear, 8: head}
    bits, _ = make(device, precision="int4", ratio=0.6)
    assert 0.3 * linear < bits[4] <= 0.6 * linear
    assert bits[4] + bits[8] == linear + head


def test_each_device_gets_its_layout(make):
    kinds = []
    for device in (CPU, GPU):
        _, output = make(device, precision="int4", group_size=32, extra={"calibration": "none"})
        inputs = reader.read(output / "model.onnx").inputs
        kinds.append((inputs["past_key_values.0.key"], "position_ids" in inputs))
    assert kinds == [(writer.FLOAT, False), (writer.FLOAT16, True)]


def test_calibration_by_default_by_file_and_not_at_all(make, source, tmp_path, monkeypatch):
    quantizing_checks.check_calibrations(make, source, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("device", "recipe", "message"),
    [
        (CPU, {"precision": "int4", "group_size": 48}, "dml:CPU takes no groups of 48"),
        (CPU, {"precision": "int4", "group_size": 256}, "groups of 256 do not divide the 128 inputs"),
        (CPU, {"precision": "fp16", "ratio": 0.5}, "a ratio of 0.5 needs int4"),
        (CPU, {"precision": "int4", "extra": {"exporter": "mine"}}, "knows no exporter 'mine'"),
        (GPU, {"precision": "int4", "symmetric": False, "group_size": 128}, "even number of groups only"),
    ],
)
def test_refused_before_the_work(source, tmp_path, device, recipe, message):
    output = tmp_path / "output"
    output.mkdir()
    with pytest.raises(UsageError, match=message):
        quantization.quantize(source, device, Recipe(**recipe), output, lambda *_, **__: None)
    assert not list(output.iterdir())


def test_too_little_disk_or_memory_is_said_with_the_figures(source, tmp_path, monkeypatch):
    def make():
        quantization.quantize(source, CPU, Recipe(precision="int4"), tmp_path, lambda *_, **__: None)

    quantizing_checks.check_resources_are_said(make, monkeypatch, disk=r"67\.\d", memory=r"6\d\d\.\d")


@pytest.mark.parametrize("name", TINY)
def test_a_gguf_file_gives_what_its_checkpoint_gives(tmp_path, name):
    quantizing_checks.check_gguf(quantization.quantize, CPU, name, "model.onnx.data", tmp_path)

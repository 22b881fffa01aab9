"""A safetensors file written tensor by tensor is what the safetensors library reads."""

from __future__ import annotations

import numpy as np
import pytest
from phi3_core.checkpoint.safetensors import read_header
from phi3_core.checkpoint.safetensors_writer import SafetensorsWriter, TensorSpec

FILE = "weights.safetensors"
TENSORS = (
    TensorSpec(name="b.weight", dtype="U8", shape=(5, 3)),
    TensorSpec(name="b.scale", dtype="F16", shape=(5, 1)),
    TensorSpec(name="norm", dtype="F32", shape=(7,)),
)


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    with SafetensorsWriter(tmp_path / FILE, TENSORS, metadata={"mark": "yes"}) as writer:
        writer.put("norm", random.standard_normal(7).astype(np.float32))
        writer.put("b.weight", np.arange(6, 15, dtype=np.uint8).reshape(3, 3), 2)
        writer.put("b.weight", np.arange(6, dtype=np.uint8).reshape(2, 3))
        writer.put("b.scale", np.full((5, 1), -0.5, np.float16))
    return tmp_path


def test_the_safetensors_library_reads_what_was_written(folder):
    load_file = pytest.importorskip("safetensors.numpy", reason="needs safetensors to compare with").load_file
    read = load_file(folder / FILE)
    assert {name: (values.dtype, values.shape) for name, values in read.items()} == {
        "b.weight": (np.uint8, (5, 3)),
        "b.scale": (np.float16, (5, 1)),
        "norm": (np.float32, (7,)),
    }
    assert read["b.weight"].reshape(-1).tolist() == list(range(15))
    assert np.array_equal(read["norm"], np.random.default_rng(0).standard_normal(7).astype(np.float32))


def test_the_header_has_the_metadata_and_the_data_is_aligned(folder):
    header, start = read_header(folder / FILE)
    assert header["__metadata__"] == {"format": "pt", "mark": "yes"}
    assert start % 64 == 0


def test_rows_of_another_width_are_not_written(tmp_path):
    with SafetensorsWriter(tmp_path / FILE, TENSORS) as writer, pytest.raises(ValueError, match="rows of 3"):
        writer.put("b.weight", np.zeros((2, 4), np.uint8))

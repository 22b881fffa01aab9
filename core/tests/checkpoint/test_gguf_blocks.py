"""Values of GGUF's tensor types are the same bits as those of the package ``gguf``."""

import numpy as np
import pytest
from phi3_core.checkpoint.gguf_blocks import values_of
from phi3_core.checkpoint.gguf_types import TYPES

gguf = pytest.importorskip("gguf", reason='pip install "phi3-core[sample]"')


@pytest.mark.parametrize("number", [number for number, kind in TYPES.items() if kind.read], ids=lambda n: TYPES[n].name)
def test_every_value_is_the_same_bits(number):
    kind = TYPES[number]
    # Every byte occurs at every place of a block; scales that are infinite or no number are part of it.
    bytes_of_a_row = kind.size * max(1, 512 // kind.elements)
    rows = np.random.default_rng(number).integers(0, 256, (600, bytes_of_a_row), dtype=np.uint8)
    with np.errstate(all="ignore"):
        ours = values_of(number, rows)
        theirs = np.asarray(gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(number)), np.float32)
    assert ours.shape == theirs.shape
    assert np.array_equal(np.isnan(ours), np.isnan(theirs))
    numbers = ~np.isnan(ours)
    assert np.array_equal(ours.view(np.uint32)[numbers], theirs.view(np.uint32)[numbers])


def test_the_table_of_types_is_the_packages():
    theirs = {int(kind): (kind.name, *size) for kind, size in gguf.GGML_QUANT_SIZES.items()}
    ours = {number: kind[:3] for number, kind in TYPES.items()}
    # Either may know types that the other does not.
    assert all(theirs[number] == ours[number] for number in ours.keys() & theirs.keys())
    assert {number for number, kind in TYPES.items() if kind.read} <= theirs.keys()

"""Products with mapped weights are those of their float32 copies, and damage is named."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.forward import hidden_states
from phi3_core.checkpoint.matmul import product
from phi3_core.checkpoint.safetensors import Weight
from phi3_core.errors import ModelError
from phi3_core.testing.checkpoints import TINY, write_random

RANDOM = np.random.default_rng(5)
INPUTS = RANDOM.standard_normal((7, 96), np.float32)


def weight_of(values, dtype="F32"):
    return Weight(name="layer.weight", file=Path("model.safetensors"), dtype=dtype, raw=values)


@pytest.mark.parametrize("outputs", [1, 3, 501])
@pytest.mark.parametrize("threads", [1, 3])
def test_products_are_those_of_a_copy(outputs, threads, monkeypatch):
    monkeypatch.setattr("phi3_core.checkpoint.matmul._AT_ONCE", 96 * 50)
    monkeypatch.setattr("phi3_core.checkpoint.matmul._THREADS", threads)
    values = RANDOM.standard_normal((outputs, 96), np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    kept = (bits.astype(np.uint32) << 16).view(np.float32)
    for weight, expected in ((weight_of(values), values), (weight_of(bits, "BF16"), kept)):
        assert product(weight, INPUTS) == pytest.approx(INPUTS @ expected.T, abs=1e-4)


@pytest.mark.parametrize("damage", [np.nan, np.inf, -np.inf])
def test_damaged_weights_are_named(damage):
    values = RANDOM.standard_normal((20, 96), np.float32)
    values[13, 7] = damage
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged: tensor layer\.weight"):
        product(weight_of(values), INPUTS)


def test_numbers_too_large_to_multiply_are_no_damage():
    large = np.full((2, 96), 1e38, np.float32)
    assert np.isinf(product(weight_of(large), large)).all()


def blas_threads():
    return [each["num_threads"] for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas"]


def test_two_at_once_have_the_matrix_library_to_themselves_and_give_it_back(monkeypatch):
    def slowly(weight, *arguments, **options):
        time.sleep(float(weight.name))
        seen.extend(blas_threads())
        return convert(weight, *arguments, **options)

    seen: list[int] = []
    convert, before = Weight.float32, blas_threads()
    monkeypatch.setattr(Weight, "float32", slowly)
    values = RANDOM.standard_normal((20, 96), np.float32)
    first, second = (Weight(name=name, file=Path("x"), dtype="F32", raw=values) for name in ("0.2", "0.4"))
    with ThreadPoolExecutor(2) as pool:
        made = [pool.submit(product, first, INPUTS)]
        time.sleep(0.1)
        made.append(pool.submit(product, second, INPUTS))
        assert all(np.isfinite(each.result()).all() for each in made)
    assert set(seen) <= {1}
    assert blas_threads() == before


def test_a_whole_pass_leaves_the_matrix_librarys_threads_alone(tmp_path):
    seen, before = [], blas_threads()
    checkpoint = Checkpoint.open(write_random(tmp_path / "tiny", TINY["phi-4"]))
    hidden_states(checkpoint, [[1, 2, 3]], observe=lambda *_: seen.append(blas_threads()))
    assert len(seen) == len(list(checkpoint.linear)) + 1
    assert all(set(each) <= {1} for each in seen)
    assert blas_threads() == before

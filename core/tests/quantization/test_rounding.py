"""Rounding: as good as the search promises, and never outside what a backend can read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from phi3_core.checkpoint.safetensors import Weight
from phi3_core.errors import ModelError, UsageError
from phi3_core.quantization.importance import Importance, observe
from phi3_core.quantization.rounding import pack_nibbles, relative_output_error, round_blocks, round_rows, round_weight
from phi3_core.quantization.scales import Scheme

RANDOM = np.random.default_rng(3)
VALUES = RANDOM.standard_normal((96, 256), np.float32) * np.float32(0.02)
MOMENTS = RANDOM.chisquare(1, 256).astype(np.float32) + np.float32(0.01)
PLAIN = Importance(moments=MOMENTS)
# Inputs of very different size that move together along a few directions.
MIXING = RANDOM.standard_normal((8, 256)).astype(np.float32)
INPUTS = (RANDOM.standard_normal((600, 8)) @ MIXING + RANDOM.standard_normal((600, 256))).astype(np.float32)
INPUTS *= np.sqrt(MOMENTS)
FULL = observe(INPUTS)
SCHEMES = [
    Scheme(bits=bits, symmetric=symmetric, group_size=size)
    for bits in (4, 8)
    for symmetric in (True, False)
    for size in (-1, 64)
]


def weight_of(values):
    return Weight(name="layer.weight", file=Path("model.safetensors"), dtype="F32", raw=values)


def loss(values, rounded, moments):
    return float((np.square(values - rounded) * moments).sum())


def nearest(values, size):
    """Round to nearest at the scale where the largest weight of each group is -8 times it."""
    grouped = values.reshape(-1, size)
    peaks = np.take_along_axis(grouped, np.abs(grouped).argmax(1)[:, None], 1)
    scales = (peaks / -8).astype(np.float16).astype(np.float32)
    return (np.clip(np.rint(grouped / scales), -8, 7) * scales).reshape(values.shape)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_integers_and_scales_are_in_range_and_close(scheme):
    rounded = round_rows(VALUES, scheme, PLAIN)
    groups = 1 if scheme.group_size == -1 else 4
    low, high = scheme.limits
    assert rounded.values.dtype == (np.int8 if scheme.symmetric else np.uint8)
    assert low <= rounded.values.min()
    assert rounded.values.max() <= high
    assert rounded.scales.shape == (96, groups)
    assert rounded.scales.dtype == np.float16
    assert (rounded.zeros is None) == scheme.symmetric
    share = np.square(rounded.dequantize() - VALUES).mean() / np.square(VALUES).mean()
    assert share < {4: 0.03, 8: 2e-4}[scheme.bits]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_lost_share_is_that_of_the_output(scheme):
    rounded = round_rows(VALUES, scheme, PLAIN)
    expected = loss(VALUES, rounded.dequantize(), MOMENTS) / loss(VALUES, 0, MOMENTS)
    assert relative_output_error(VALUES, rounded, PLAIN) == pytest.approx(expected, rel=5e-3)
    assert relative_output_error(np.zeros_like(VALUES), round_rows(np.zeros_like(VALUES), scheme)) == 0


@pytest.mark.parametrize("size", [64, 256])
def test_searching_beats_rounding_to_nearest_and_moments_beat_none(size):
    scheme = Scheme(bits=4, group_size=size)
    plain = loss(VALUES, nearest(VALUES, size), 1)
    searched = loss(VALUES, round_rows(VALUES, scheme).dequantize(), 1)
    assert searched < 0.95 * plain
    blind = loss(VALUES, round_rows(VALUES, scheme).dequantize(), MOMENTS)
    seeing = loss(VALUES, round_rows(VALUES, scheme, PLAIN).dequantize(), MOMENTS)
    assert seeing < 0.97 * blind


def test_a_zero_point_pays_where_weights_lean_to_one_side():
    leaning = np.abs(VALUES)
    losses = [
        loss(leaning, round_rows(leaning, Scheme(bits=4, symmetric=symmetric, group_size=64)).dequantize(), 1)
        for symmetric in (True, False)
    ]
    assert losses[1] < 0.5 * losses[0]


def test_weights_that_lie_on_the_grid_come_back_exactly():
    integers = RANDOM.integers(-8, 8, (32, 128)).astype(np.float32)
    integers[:, ::64] = -8
    values = integers * np.float32(0.0078125)
    assert np.array_equal(round_rows(values, Scheme(bits=4, group_size=64)).dequantize(), values)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_groups_of_zeros_stay_zero(scheme):
    values = VALUES.copy()
    values[:, :64] = 0
    values[7] = 0
    rounded = round_rows(values, scheme).dequantize()
    assert not rounded[:, :64].any()
    assert not rounded[7].any()


def test_moments_of_zero_are_harmless():
    assert np.isfinite(
        round_rows(VALUES, Scheme(bits=4), Importance(moments=np.zeros(256, np.float32))).dequantize()
    ).all()


def output_loss(values, rounded):
    return float(np.square(INPUTS @ (values - rounded).T).sum())


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("size", [-1, 32, 64])
def test_feedback_spares_the_outputs(size, symmetric):
    scheme = Scheme(bits=4, symmetric=symmetric, group_size=size)
    without = round_rows(VALUES, scheme, Importance(moments=FULL.moments))
    given = round_rows(VALUES, scheme, FULL)
    low, high = scheme.limits
    assert low <= given.values.min()
    assert given.values.max() <= high
    assert output_loss(VALUES, given.dequantize()) < 0.8 * output_loss(VALUES, without.dequantize())


def test_balance_spares_what_matters():
    """A twentieth of the inputs is a hundred times as large as the others."""
    moments = np.where(np.arange(256) % 20 == 0, np.float32(100), np.float32(1))
    scheme = Scheme(bits=4, group_size=64)
    plain = Importance(moments=moments)
    balanced = plain.balanced()
    assert balanced.balance is not None
    assert np.exp(np.log(balanced.balance).mean()) == pytest.approx(1, rel=1e-3)
    without = round_weight(weight_of(VALUES), scheme, plain).dequantize()
    given = round_weight(weight_of(VALUES), scheme, balanced).dequantize() / balanced.balance
    assert loss(VALUES, given, moments) < 0.9 * loss(VALUES, without, moments)


def test_values_are_left_alone_and_factors_are_taken_in():
    before = VALUES.copy()
    balanced = FULL.balanced(np.linspace(0.5, 2, 256, dtype=np.float32))
    round_rows(VALUES, Scheme(bits=4), balanced)
    assert np.array_equal(VALUES, before)
    factors = np.linspace(0.5, 2, 96, dtype=np.float32)
    ((_, given),) = round_blocks(weight_of(VALUES), Scheme(bits=8), factors=factors)
    assert given.dequantize() == pytest.approx(VALUES * factors[:, None], abs=2e-3)


def test_observed_directions_explain_the_covariance():
    normed = INPUTS / np.sqrt(np.square(INPUTS).mean(0))
    covariance = normed.T @ normed / len(normed)
    model = FULL.directions @ FULL.directions.T
    apart = ~np.eye(256, dtype=bool)
    assert np.square(covariance - model)[apart].sum() < 0.1 * np.square(covariance)[apart].sum()
    assert observe(INPUTS[:5]).directions is None


@pytest.mark.parametrize("importance", [PLAIN, FULL], ids=["moments", "feedback"])
@pytest.mark.parametrize("workers", [1, 3])
def test_blocks_make_the_whole(workers, importance, monkeypatch):
    monkeypatch.setattr("phi3_core.quantization.rounding._AT_ONCE", 7 * 256)
    monkeypatch.setattr("phi3_core.quantization.rounding._AT_ONCE_IN_STEPS", 7 * 256)
    scheme = Scheme(bits=4, symmetric=False, group_size=64)
    expected = round_rows(VALUES, scheme, importance)
    blocks = list(round_blocks(weight_of(VALUES), scheme, importance, workers=workers))
    assert [rows.start for rows, _ in blocks] == list(range(0, 96, 7))
    assert np.array_equal(np.concatenate([part.values for _, part in blocks]), expected.values)
    whole = round_weight(weight_of(VALUES), scheme, importance)
    assert np.array_equal(whole.dequantize(), expected.dequantize())
    packed = [part.values for _, part in round_blocks(weight_of(VALUES), scheme, importance, pack=True)]
    assert np.array_equal(np.concatenate(packed), pack_nibbles(expected.values))


@pytest.mark.parametrize("damage", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "importance", [None, PLAIN, FULL, FULL.balanced()], ids=["none", "moments", "feedback", "both"]
)
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_weights_that_are_not_finite_are_named(scheme, importance, damage):
    values = VALUES.copy()
    values[13, 70] = damage
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged: tensor layer\.weight"):
        round_weight(weight_of(values), scheme, importance)


def test_groups_that_do_not_divide_are_refused_with_the_figures():
    with pytest.raises(UsageError, match=r"groups of 100 do not divide the 256 inputs of layer\.weight") as caught:
        round_weight(weight_of(VALUES), Scheme(bits=4, group_size=100))
    assert "128 or 64 or 32 or -1" in str(caught.value.hint)


def test_nibbles():
    packed = pack_nibbles(np.array([[-8, 7, 0, -1]], np.int8))
    assert packed.tolist() == [[0x78, 0xF0]]
    assert pack_nibbles(np.array([[0, 15, 8, 1]], np.uint8)).tolist() == [[0xF0, 0x18]]

"""Which faults the known answers of an artifact find, and which differences of kernels they forgive."""

from __future__ import annotations

import json

import numpy as np
import pytest
from attrs import evolve
from damage import damaged
from phi3_core.checking import judge
from phi3_core.checking.choose import choose
from phi3_core.checking.known import MANIFEST_KEY, from_manifest, to_manifest
from phi3_core.checkpoint import forward
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.testing.checkpoints import write_random

TEXT = [int(each) for each in np.random.default_rng(5).integers(3, 320, 160)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = write_random(tmp_path_factory.mktemp("random"), {"max_position_embeddings": 256, "num_hidden_layers": 4})
    return Checkpoint.open(folder)


@pytest.fixture(scope="module")
def known(checkpoint):
    found = choose(TEXT, forward.logits(checkpoint, TEXT))
    assert found is not None
    return found


def lost(known, rows):
    """What greedy answers from these logits lose at each step."""
    best = np.nan_to_num(rows, nan=-np.inf).argmax(axis=1)
    return [
        each
        for chain in known.chains
        for each in judge.losses(chain, best[chain.prompt - 1 : chain.prompt - 1 + len(chain.steps)].tolist())
    ]


def rounded_inputs(bits):
    """Linear layers whose inputs are rounded, one scale for each token, as kernels with dynamic quantization do."""
    exact = forward.product

    def product(weight, inputs):
        scale = np.abs(inputs).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
        return exact(weight, (np.round(inputs / scale) * scale).astype(np.float32))

    return product


@pytest.mark.parametrize("kernel", [lambda: rounded_inputs(8), lambda: rounded_inputs(10)])
def test_kernels_that_round_otherwise_are_believed(checkpoint, known, monkeypatch, kernel):
    monkeypatch.setattr(forward, "product", kernel())
    assert not judge.is_wrong(lost(known, forward.logits(checkpoint, TEXT)))


def wrong_layer(checkpoint, monkeypatch):
    layers = list(checkpoint.layers)
    layers[1] = layers[2]
    return evolve(checkpoint, layers=tuple(layers))


def wrong_base(checkpoint, monkeypatch):
    size = checkpoint.architecture.rotary.size
    turns = np.float32(500.0) ** (np.arange(0, size, 2, dtype=np.float32) / np.float32(size))
    rotary = evolve(checkpoint.architecture.rotary, short=np.float32(1) / turns)
    return evolve(checkpoint, architecture=evolve(checkpoint.architecture, rotary=rotary))


def cache_off_by_one(checkpoint, monkeypatch):
    """Each token misses the one before it, as if it had been written over."""
    exact = forward._mask

    def mask(start, stop, first, window):
        found = exact(start, stop, first, window)
        for row in range(max(start, 1), stop):
            found[row - start, row - 1 - first] = -np.inf
        return found

    monkeypatch.setattr(forward, "_mask", mask)
    return checkpoint


def swapped(checkpoint, monkeypatch):
    exact = forward._attend

    def attend(shape, qkv):
        queries, keys, values = np.split(qkv, [shape.q_width, shape.q_width + shape.kv_width], axis=1)
        return exact(shape, np.concatenate([keys, queries, values], axis=1))

    monkeypatch.setattr(forward, "_attend", attend)
    return checkpoint


def saturated(checkpoint, monkeypatch):
    exact = forward.product
    monkeypatch.setattr(forward, "product", lambda weight, inputs: np.clip(exact(weight, inputs), -0.5, 0.5))
    return checkpoint


def overflow(checkpoint, monkeypatch):
    exact = forward.product
    monkeypatch.setattr(forward, "product", lambda weight, inputs: exact(weight, inputs) * np.float32(np.nan))
    return checkpoint


@pytest.mark.parametrize("harm", [wrong_layer, wrong_base, cache_off_by_one, swapped, saturated, overflow])
def test_faults_are_found(checkpoint, known, monkeypatch, harm):
    harmed = harm(checkpoint, monkeypatch)
    with np.errstate(invalid="ignore"):
        assert judge.is_wrong(lost(known, forward.logits(harmed, TEXT)))


def test_one_odd_token_is_no_fault_and_few_steps_tell():
    assert not judge.is_wrong([0.0] * 20 + [9.0])
    assert judge.is_wrong([4.0, 3.0, 0.0, 0.0])
    assert not judge.is_wrong([0.3, 0.4, 0.2] * 4)  # near ties
    assert not judge.is_wrong([])


def test_chains_follow_the_text_and_survive_the_manifest():
    ids = [7, 8, 9] * 20
    rows = np.zeros((60, 16), np.float32)
    rows[np.arange(59), ids[1:]] = 5.0  # it knows the text by heart
    known = choose(ids, rows)
    assert known is not None
    assert all(step.ids[0] == ids[chain.prompt + place] for chain in known.chains for place, step in _steps(chain))
    assert max(len(chain.steps) for chain in known.chains) == 12
    assert [chain.prompt for chain in known.chains] == sorted(chain.prompt for chain in known.chains)
    assert from_manifest(json.loads(json.dumps({MANIFEST_KEY: to_manifest(known)}))) == known
    assert choose(ids[:10], rows[:10]) is None


def _steps(chain):
    return [each for each in enumerate(chain.steps) if each[0] < len(chain.steps) - 1]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {MANIFEST_KEY: None},
        {MANIFEST_KEY: {"ids": [1, 2], "chains": []}},
        {MANIFEST_KEY: {"ids": [1, -2], "chains": [{"prompt": 1, "steps": [[[1], [0.0]]]}]}},
        {MANIFEST_KEY: {"ids": [1, 2], "chains": [{"prompt": 3, "steps": [[[1], [0.0]]]}]}},
        {MANIFEST_KEY: {"ids": [1, 2], "chains": [{"prompt": 1, "steps": [[[], []]]}]}},
        {MANIFEST_KEY: {"ids": [1, 2], "chains": [{"prompt": 1, "steps": [[[1], [float("nan")]]]}]}},
    ],
)
def test_manifests_without_answers_or_with_damaged_ones_have_none(given):
    assert from_manifest(given) is None


def test_no_value_of_damaged_answers_is_an_error():
    for content in damaged({"ids": [1, 2], "chains": [{"prompt": 1, "steps": [[[1], [0.0]]]}]}):
        found = from_manifest({MANIFEST_KEY: content})
        assert found is None or len(found.ids) <= 2

"""Second moments of the inputs: the right numbers, kept, and never those of another model."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.forward import hidden_states
from phi3_core.errors import ModelError, UsageError
from phi3_core.evaluation.text import EVALUATION_TEXT
from phi3_core.quantization.calibration import Calibration, calibrate, calibration_for, calibration_ids
from phi3_core.quantization.calibration_text import CALIBRATION_TEXT
from phi3_core.testing.checkpoints import TINY, write_random
from tokenizers import Tokenizer, models, pre_tokenizers


@pytest.fixture
def checkpoint(tmp_path):
    folder = write_random(tmp_path / "model", TINY["phi-4-mini"])
    letters = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    return Checkpoint.open(folder)


def test_moments_are_those_of_the_inputs(checkpoint):
    sequences = [[5, 6, 7, 8], [9, 10]]
    moments = calibrate(checkpoint, sequences)
    layer, epsilon = checkpoint.layers[0], checkpoint.architecture.epsilon
    states = checkpoint.embedding.float32()[[5, 6, 7, 8, 9, 10]]
    normed = states / np.sqrt(np.square(states).mean(1, keepdims=True) + epsilon) * layer.input_norm.float32()
    assert moments.of(layer.qkv).moments == pytest.approx(np.square(normed).mean(0), rel=1e-4)
    final = hidden_states(checkpoint, sequences)
    assert moments.of(checkpoint.head).moments == pytest.approx(np.square(final).mean(0), rel=1e-4)
    assert moments.tokens == 6
    assert set(moments.by_name) == {weight.name for weight in (*checkpoint.linear, checkpoint.head)}


def test_progress_counts_layers(checkpoint):
    seen = []
    calibrate(checkpoint, [[5]], progress=lambda stage, done=None, total=None: seen.append((stage, done, total)))
    assert [(done, total) for _, done, total in seen] == [(0, 2), (1, 2)]


def test_they_are_kept_and_found_again(checkpoint, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = calibration_for(checkpoint, text="some text", cache=cache)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr("phi3_core.quantization.calibration.calibrate", None)
    again = calibration_for(checkpoint, text="some text", cache=cache)
    assert all(np.array_equal(again.by_name[name].moments, first.by_name[name].moments) for name in first.by_name)
    assert again.tokens == first.tokens


def test_what_is_found_again_is_the_same_to_the_last_bit(checkpoint, tmp_path):
    first = calibration_for(checkpoint, text="some text " * 60, cache=tmp_path)
    again = calibration_for(checkpoint, text="some text " * 60, cache=tmp_path)
    directions = [(again.by_name[name].directions, first.by_name[name].directions) for name in first.by_name]
    assert all(np.array_equal(ours, theirs) for ours, theirs in directions if theirs is not None)
    assert any(theirs is not None for _, theirs in directions)


def test_a_kept_one_that_is_damaged_is_made_again(checkpoint, tmp_path, caplog):
    cache = tmp_path / "cache"
    first = calibration_for(checkpoint, text="some text", cache=cache)
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    again = calibration_for(checkpoint, text="some text", cache=cache)
    assert again.tokens == first.tokens
    assert "it is made again" in caplog.text
    assert Calibration.load(kept).tokens == first.tokens


def test_another_text_or_other_weights_are_another_calibration(checkpoint, tmp_path):
    cache = tmp_path / "cache"
    calibration_for(checkpoint, text="some text", cache=cache)
    calibration_for(checkpoint, text="another text", cache=cache)
    write_random(tmp_path / "other", TINY["phi-4-mini"], seed=1)
    shutil.copy(checkpoint.path / "tokenizer.json", tmp_path / "other")
    calibration_for(Checkpoint.open(tmp_path / "other"), text="some text", cache=cache)
    assert len(list(cache.glob("calibration-*.npz"))) == 3


def test_damage_is_named(checkpoint, tmp_path):
    path = tmp_path / "moments.npz"
    path.write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=r"moments\.npz"):
        Calibration.load(path)
    calibrate(checkpoint, [[5]]).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ModelError, match=r"moments\.npz"):
        Calibration.load(path)
    with pytest.raises(ModelError, match="another model"):
        Calibration(by_name={}, tokens=1).of(checkpoint.head)


def test_no_text_is_refused(checkpoint):
    with pytest.raises(UsageError, match="needs some text"):
        calibration_for(checkpoint, text="")


def test_a_users_text_is_read_in_pieces(checkpoint):
    assert [len(piece) for piece in calibration_ids(checkpoint, "x" * 1100)] == [512, 512, 76]
    assert sum(len(piece) for piece in calibration_ids(checkpoint, "x" * 9999)) == 4096


def test_large_models_read_the_beginning_of_each_piece(checkpoint, monkeypatch):
    whole = calibration_ids(checkpoint)
    monkeypatch.setattr("phi3_core.checkpoint.forward._WORK", 120 * checkpoint.parameters)
    some = calibration_ids(checkpoint)
    assert sum(map(len, some)) == 120
    assert all(part == piece[: len(part)] for part, piece in zip(some, whole, strict=True))


def test_without_a_tokenizer_there_is_no_calibration(checkpoint):
    (checkpoint.path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        calibration_for(checkpoint)


def test_quality_is_judged_by_another_text():
    """No run of five words is in both."""

    def runs(text):
        words = text.split()
        return {tuple(words[place : place + 5]) for place in range(len(words) - 4)}

    assert not runs(" ".join(CALIBRATION_TEXT)) & runs(EVALUATION_TEXT)

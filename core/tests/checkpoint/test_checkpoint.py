"""Mapped checkpoints: every shape of the family is read, every damage is named."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from attrs import evolve
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.forward import hidden_states, logits
from phi3_core.checkpoint.safetensors import map_file
from phi3_core.errors import ModelError
from phi3_core.testing.checkpoints import TINY, write_random

IDS = list(np.random.default_rng(5).integers(3, 320, 40))


@pytest.fixture
def folder(tmp_path):
    return write_random(tmp_path / "model", TINY["phi-3-mini-4k"])


def change(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def rewrite_header(path, edit):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    edit(header)
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content[8 + length :])


@pytest.mark.parametrize("name", TINY)
def test_every_shape_of_the_family_is_read(tmp_path, name):
    checkpoint = Checkpoint.open(write_random(tmp_path, TINY[name]))
    shape = checkpoint.architecture
    assert len(checkpoint.layers) == shape.layers == 2
    assert len(list(checkpoint.linear)) == 8
    assert (checkpoint.head is checkpoint.embedding) == (name == "phi-4-mini")
    assert shape.heads % shape.key_value_heads == 0
    assert shape.window == TINY[name].get("sliding_window")
    assert shape.rotary.size == (12 if name == "phi-4-mini" else 16)
    assert (shape.rotary.long is not None) == ("rope_scaling" in TINY[name])
    assert np.isfinite(logits(checkpoint, IDS)).all()


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_stored_types_agree(tmp_path, dtype):
    checkpoint = Checkpoint.open(write_random(tmp_path / dtype, TINY["phi-4"], dtype=dtype))
    exact = Checkpoint.open(write_random(tmp_path / "exact", TINY["phi-4"], dtype="F32"))
    ours, theirs = (each.layers[1].down.float32() for each in (checkpoint, exact))
    assert np.abs(ours - theirs).max() <= np.abs(theirs).max() * {"F16": 2**-11, "BF16": 2**-7, "F32": 0}[dtype]
    assert np.array_equal(checkpoint.layers[1].down.float32(slice(3, 9)), ours[3:9])


def test_the_file_is_a_safetensors_file(folder):
    load_file = pytest.importorskip("safetensors.numpy", reason="needs safetensors to compare with").load_file
    theirs = load_file(folder / "model.safetensors")
    ours = map_file(folder / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name].raw, theirs[name]) for name in theirs)


def test_a_mapped_weight_cannot_be_written_to(folder):
    with pytest.raises(ValueError, match="read-only"):
        Checkpoint.open(folder).embedding.raw[:] = 1


def test_shards(folder):
    whole = dict(map_file(folder / "model.safetensors"))
    places = {}
    for number, name in enumerate(whole):
        shard = f"model-{number % 2}.safetensors"
        places[name] = shard
    for shard in ("model-0.safetensors", "model-1.safetensors"):
        header, data = {}, b""
        for name in (name for name, place in places.items() if place == shard):
            start = len(data)
            data += whole[name].raw.tobytes()
            header[name] = {"dtype": "F16", "shape": whole[name].shape, "data_offsets": [start, len(data)]}
        encoded = json.dumps(header).encode()
        (folder / shard).write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)
    expected = logits(Checkpoint.open(folder), IDS)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert np.array_equal(logits(Checkpoint.open(folder), IDS), expected)
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-1\.safetensors is missing"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("name", ["../other.safetensors", "/other.safetensors", "a\\b.safetensors", "C:x.safetensors"])
def test_an_index_cannot_lead_out_of_its_folder(folder, name):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
    with pytest.raises(ModelError, match="outside its folder"):
        Checkpoint.open(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "type 'llama'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"quantization_config": {"bits": 4}}, "quantized already"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers"),
        ({"num_key_value_heads": 3}, "4 heads fit neither 3"),
        ({"rms_norm_eps": -1}, "rms_norm_eps"),
        ({"rope_theta": 0}, "rope_theta"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "type 'linear'"),
        ({"rope_scaling": {"type": "longrope", "short_factor": [1], "long_factor": [1]}}, "list of 8"),
        ({"partial_rotary_factor": 2.0}, "32 rotary dimensions"),
        ({"hidden_size": 128}, r"model\.embed_tokens\.weight is \[320, 64\], but config\.json makes it \[320, 128\]"),
        ({"num_hidden_layers": 3}, r"no tensor model\.layers\.2\.input_layernorm\.weight"),
    ],
)
def test_what_does_not_fit_is_said(folder, changes, message):
    with pytest.raises(ModelError, match=message):
        Checkpoint.open(change(folder, **changes))


def test_missing_files_are_said(tmp_path, folder):
    with pytest.raises(ModelError, match="is not a folder"):
        Checkpoint.open(tmp_path / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"neither model\.safetensors nor"):
        Checkpoint.open(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("kept", [0, 5, 100, 5000, -2])
def test_a_truncated_file_is_named(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"model\.safetensors is (truncated|damaged)") as caught:
        Checkpoint.open(folder)
    if kept in {5000, -2}:
        assert "tensor " in caught.value.message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_offsets": [0, 7]}, "cannot have 7 bytes"),
        ({"data_offsets": [-2, 126]}, "malformed"),
        ({"data_offsets": [0, 1 << 60]}, "truncated"),
        ({"shape": "[64]"}, "malformed"),
        ({"shape": [32]}, "cannot have 128 bytes"),
        ({"dtype": "I32"}, "cannot have 128 bytes"),
        ({"dtype": "I16"}, r"is I16; only F16, BF16, F32"),
        ({"dtype": 3}, "malformed"),
        ({"data_offsets": [2, 130]}, "overlaps"),
    ],
)
def test_a_damaged_entry_is_named(folder, changes, message):
    rewrite_header(folder / "model.safetensors", lambda header: header["model.norm.weight"].update(changes))
    with pytest.raises(ModelError, match=message) as caught:
        Checkpoint.open(folder)
    assert "model.safetensors" in caught.value.message
    assert "tensor " in caught.value.message


def test_values_that_are_not_finite_are_named(folder):
    checkpoint = Checkpoint.open(folder)
    down = checkpoint.layers[0].down
    damaged = down.raw.copy()
    damaged[3, 5] = np.nan
    layers = (evolve(checkpoint.layers[0], down=evolve(down, raw=damaged)), *checkpoint.layers[1:])
    with pytest.raises(ModelError, match=r"model\.layers\.0\.mlp\.down_proj\.weight"):
        logits(evolve(checkpoint, layers=layers), IDS)


def test_a_token_beyond_the_vocabulary_is_named(folder):
    checkpoint = Checkpoint.open(folder)
    with pytest.raises(ModelError, match="the tokenizer has a token 320, and .* a vocabulary of 320"):
        logits(checkpoint, [1, 320])


def test_longrope_as_in_its_paper(tmp_path):
    rotary = Checkpoint.open(write_random(tmp_path, TINY["phi-3-mini-128k"])).architecture.rotary
    config = json.loads((tmp_path / "config.json").read_text())
    for name, found in (("short_factor", rotary.short), ("long_factor", rotary.long)):
        factors = config["rope_scaling"][name]
        expected = [1 / (factor * 10_000.0 ** (2 * place / 16)) for place, factor in enumerate(factors)]
        assert found == pytest.approx(expected, rel=1e-6)
    assert rotary.scale == pytest.approx(math.sqrt(1 + math.log(96 / 24) / math.log(24)))
    assert np.array_equal(rotary.frequencies(24), rotary.short)
    assert np.array_equal(rotary.frequencies(25), rotary.long)


def test_the_newer_form_of_the_rotary_settings_is_the_same(tmp_path):
    older = Checkpoint.open(write_random(tmp_path, TINY["phi-4-mini"])).architecture.rotary
    config = json.loads((tmp_path / "config.json").read_text())
    settings = config.pop("rope_scaling")
    settings = {"rope_type": settings.pop("type"), **settings}
    settings |= {key: config.pop(key) for key in ("rope_theta", "partial_rotary_factor")}
    (tmp_path / "config.json").write_text(json.dumps({**config, "rope_parameters": settings}))
    newer = Checkpoint.open(tmp_path).architecture.rotary
    assert np.array_equal(newer.short, older.short)
    assert newer.scale == older.scale


def test_later_tokens_change_nothing_before_them(folder):
    checkpoint = Checkpoint.open(folder)
    assert logits(checkpoint, IDS)[:20] == pytest.approx(logits(checkpoint, IDS[:20]), abs=1e-5)


def test_the_window_hides_what_lies_behind_it(tmp_path):
    """Two layers of a window of 11 see 20 tokens back; the 22nd from the end changes nothing."""
    checkpoint = Checkpoint.open(write_random(tmp_path, TINY["phi-3-mini-4k"]))
    changed = list(IDS)
    changed[-22] ^= 1
    assert np.array_equal(logits(checkpoint, IDS)[-1], logits(checkpoint, changed)[-1])
    changed[-21] ^= 1
    assert not np.array_equal(logits(checkpoint, IDS)[-1], logits(checkpoint, changed)[-1])


def test_sequences_are_independent(folder):
    checkpoint = Checkpoint.open(folder)
    together = hidden_states(checkpoint, [IDS[:7], IDS[7:]])
    apart = np.concatenate([hidden_states(checkpoint, [part]) for part in (IDS[:7], IDS[7:])])
    assert together == pytest.approx(apart, abs=1e-5)

"""Mapped checkpoints: every shape of the family is read, every damage is named."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
from attrs import evolve
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.forward import hidden_states, logits
from phi3_core.checkpoint.safetensors import map_file, stored_bytes
from phi3_core.checkpoint.safetensors_writer import SafetensorsWriter, TensorSpec
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


def test_shards(tmp_path, folder):
    expected = logits(Checkpoint.open(folder), IDS)
    whole = dict(map_file(folder / "model.safetensors"))
    shutil.copytree(folder, tmp_path / "shards")
    folder = tmp_path / "shards"
    (folder / "model.safetensors").unlink()
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
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert np.array_equal(logits(Checkpoint.open(folder), IDS), expected)
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-1\.safetensors is missing"):
        Checkpoint.open(folder)


def test_an_index_with_a_name_that_no_file_can_have(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other", ignore=shutil.ignore_patterns("*.safetensors"))
    index = {"weight_map": {"model.norm.weight": "x" * 300}}
    (tmp_path / "other/model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="xxx is missing"):
        Checkpoint.open(tmp_path / "other")


@pytest.mark.parametrize("name", ["../other.safetensors", "/other.safetensors", "a\\b.safetensors", "C:x.safetensors"])
def test_an_index_cannot_lead_out_of_its_folder(folder, name):
    (folder / "model.safetensors").unlink()
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
    ("start", "words"),
    [(b"<!DOCTYPE html><html>", "a web page"), (b"PK\3\4", "a pickle of PyTorch"), (b"GGUF\3\0\0\0", "a GGUF file")],
)
def test_another_format_under_this_name_is_named(folder, start, words):
    (folder / "model.safetensors").write_bytes(start + bytes(1000))
    with pytest.raises(ModelError, match=f"is damaged: it is {words}"):
        Checkpoint.open(folder)


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


def add_tensors(folder, **tensors):
    """Add tensors of float16 to the file of a checkpoint; ``None`` removes one."""
    whole = {name: np.array(weight.raw) for name, weight in map_file(folder / "model.safetensors").items()}
    whole |= tensors
    whole = {name: values for name, values in whole.items() if values is not None}
    written = folder.parent / f"{folder.name}-changed"
    shutil.copytree(folder, written, ignore=shutil.ignore_patterns("*.safetensors"))
    specs = [TensorSpec(name=name, dtype="F16", shape=values.shape) for name, values in whole.items()]
    with SafetensorsWriter(written / "model.safetensors", specs) as writer:
        for name, values in whole.items():
            writer.put(name, values)
    return written


ONES, ZEROS = np.ones((2, 64), np.float16), np.zeros(64, np.float16)
LAYER = "model.layers.0.self_attn"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{LAYER}.o_proj.bias": ONES[0]}, rf"biases that are not zero.*{LAYER}\.o_proj\.bias"),
        ({f"{LAYER}.qkv_proj.lora_A.default.weight": ONES}, r"LoRA .* not merged.*lora_A"),
        ({"lm_head.modules_to_save.default.weight": ONES, "lm_head.weight": None}, "adapter that is not merged"),
        ({f"{LAYER}.o_proj.weight": None, f"{LAYER}.o_proj.base_layer.weight": ONES}, "adapter that is not merged"),
        ({"model.layers.2.input_layernorm.weight": ONES[0]}, "tensors of 3 layers, but config.json says 2"),
        ({f"{LAYER}.o_proj.weight": None, f"{LAYER}.o_proj.qweight": ONES}, "quantized already.*qweight"),
        ({f"{LAYER}.o_proj.weight.absmax": ONES}, "quantized already.*absmax"),
        ({"v_head.summary.weight": ONES}, r"no place for: v_head\.summary\.weight"),
        ({"score.weight": ONES, "lm_head.weight": None}, "classifies text"),
        ({f"{LAYER}.qkv_proj.weight": None, f"{LAYER}.q_proj.weight": ONES}, "separate ones such as .*q_proj"),
        ({"lm_head.weight": None}, r"no tensor lm_head\.weight"),
    ],
)
def test_tensors_without_a_place_are_named(folder, tensors, message):
    with pytest.raises(ModelError, match=message) as caught:
        Checkpoint.open(add_tensors(folder, **tensors))
    assert caught.value.hint


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model.", ""])
def test_prefixes_of_wrappers_are_named(folder, prefix):
    names = map_file(folder / "model.safetensors")
    renamed = {
        f"{prefix}{name}" if prefix else name.removeprefix("model."): np.array(names[name].raw) for name in names
    }
    with pytest.raises(ModelError, match={"base_model.model.": "not merged", "": "lack 'model.'"}.get(prefix, prefix)):
        Checkpoint.open(add_tensors(folder, **{**dict.fromkeys(names), **renamed}))


def test_fewer_layers_than_config_says(folder):
    with pytest.raises(ModelError, match="it has 2 layers, but config.json says 4"):
        Checkpoint.open(change(folder, num_hidden_layers=4))


def test_what_changes_nothing_is_passed_over(folder):
    harmless = {f"{LAYER}.rotary_emb.inv_freq": ONES[0], f"{LAYER}.o_proj.bias": ZEROS, f"{LAYER}.o.bias": -ZEROS}
    expected = logits(Checkpoint.open(folder), IDS)
    assert np.array_equal(logits(Checkpoint.open(add_tensors(folder, **harmless)), IDS), expected)


def test_an_output_layer_of_its_own_is_used_although_config_says_tied(tmp_path):
    tied = write_random(tmp_path / "tied", TINY["phi-4-mini"])
    embedding = np.array(map_file(tied / "model.safetensors")["model.embed_tokens.weight"].raw)
    own = Checkpoint.open(add_tensors(tied, **{"lm_head.weight": embedding[::-1]}))
    assert not own.architecture.tied
    assert np.array_equal(own.head.raw, embedding[::-1])
    untied = Checkpoint.open(change(own.path, tie_word_embeddings=False))
    assert np.array_equal(logits(own, IDS), logits(untied, IDS))


def test_an_output_layer_that_equals_the_embedding_is_tied(tmp_path):
    tied = write_random(tmp_path / "tied", TINY["phi-4-mini"])
    embedding = np.array(map_file(tied / "model.safetensors")["model.embed_tokens.weight"].raw)
    same = Checkpoint.open(add_tensors(tied, **{"lm_head.weight": embedding}))
    assert same.architecture.tied
    assert same.head is same.embedding
    other = write_random(tmp_path / "other", TINY["phi-4-mini"])
    alone = add_tensors(other, **{"lm_head.weight": embedding, "model.embed_tokens.weight": None})
    kept = Checkpoint.open(alone)  # what safetensors.torch.save_model keeps of the two
    assert (kept.architecture.tied, kept.head is kept.embedding) == (True, True)
    assert np.array_equal(logits(kept, IDS), logits(Checkpoint.open(tied), IDS))
    with pytest.raises(ModelError, match=r"lm_head\.weight is \[2, 64\], but config\.json makes it \[320, 64\]"):
        Checkpoint.open(add_tensors(same.path, **{"lm_head.weight": ONES}))


def test_weights_are_compared_by_value(tmp_path):
    half, single = (
        map_file(write_random(tmp_path / dtype, TINY["phi-4"], dtype=dtype) / "model.safetensors")
        for dtype in ("F16", "F32")
    )
    norm = half["model.norm.weight"]
    assert norm.equals(norm)
    assert not norm.equals(half["model.layers.0.input_layernorm.weight"])
    assert not norm.equals(single["model.norm.weight"])  # rounded
    assert evolve(norm, raw=norm.float32(), dtype="F32").equals(norm)


def test_a_whole_file_takes_precedence_over_the_index_of_an_earlier_save(folder):
    expected = logits(Checkpoint.open(folder), IDS)
    places = dict.fromkeys(map_file(folder / "model.safetensors"), "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert np.array_equal(logits(Checkpoint.open(folder), IDS), expected)
    (folder / "model-00001-of-00002.safetensors").write_bytes(bytes(999))
    (folder / "adapter_model.safetensors").write_bytes(bytes(999))
    assert stored_bytes(folder) == (folder / "model.safetensors").stat().st_size


def test_shards_without_an_index_are_said(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    (tmp_path / "other/model.safetensors").rename(tmp_path / "other/model-00001-of-00001.safetensors")
    with pytest.raises(ModelError, match="has model-00001-of-00001.safetensors, but neither"):
        Checkpoint.open(tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "phi3small"}, "Phi-3-small"),
        ({"model_type": "phi4mm"}, "Phi-4-multimodal"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized already, with GPTQ"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantized already, with bitsandbytes"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "quantized already, with MLX"),
        ({"architectures": ["Phi3ForSequenceClassification"]}, "classifies text"),
    ],
)
def test_other_models_and_quantized_weights_are_named(folder, changes, message):
    with pytest.raises(ModelError, match=message):
        Checkpoint.open(change(folder, **changes))

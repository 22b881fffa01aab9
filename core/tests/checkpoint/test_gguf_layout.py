"""GGUF files of the Phi family become the checkpoint that they were made of, and all others are refused by name."""

import random

import gguf_files
import numpy as np
import pytest
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.forward import logits
from phi3_core.checkpoint.gguf import Gguf
from phi3_core.checkpoint.gguf_layout import read_layout
from phi3_core.checkpoint.gguf_weights import open_gguf
from phi3_core.errors import ModelError
from phi3_core.testing.checkpoints import TINY, write_random

IDS = list(np.random.default_rng(5).integers(3, 320, 40))


def opened(file):
    return Checkpoint.open(gguf_files.linked(file, file.parent / "linked"))


@pytest.mark.parametrize("name", TINY)
def test_the_checkpoint_is_the_one_that_the_file_was_made_of(tmp_path, name):
    source = write_random(tmp_path / "source", TINY[name], dtype="F32")
    original, found = Checkpoint.open(source), opened(gguf_files.convert(source, tmp_path / "m.gguf"))
    assert np.array_equal(logits(found, IDS), logits(original, IDS)), "beyond LongRoPE's original context too"
    ours, theirs = found.architecture, original.architecture
    for key in ("layers", "heads", "key_value_heads", "head_size", "context", "window", "epsilon", "tied"):
        assert getattr(ours, key) == getattr(theirs, key)
    assert (ours.rotary.size, ours.rotary.scale) == (theirs.rotary.size, pytest.approx(theirs.rotary.scale))


@pytest.mark.parametrize("architecture", ["phi3", "llama"])
@pytest.mark.parametrize("name", ["phi-3-medium", "phi-4"])
def test_separate_matrices_are_stacked(tmp_path, architecture, name):
    source = write_random(tmp_path / "source", {**TINY[name], "sliding_window": None}, dtype="F32")
    tensors = gguf_files.tensors_of(source, fused=False, permuted=architecture == "llama")
    metadata = gguf_files.metadata_of(source, architecture) | gguf_files.sentencepiece(size=320)
    found = opened(gguf_files.write(tmp_path / "m.gguf", architecture, metadata, tensors))
    assert np.array_equal(logits(found, IDS), logits(Checkpoint.open(source), IDS))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16"])
def test_rows_are_those_of_the_dequantized_tensors(tmp_path, kind):
    source = write_random(tmp_path / "source", TINY["phi-4"], dtype="F32")
    tensors = gguf_files.tensors_of(source, fused=False, kind=lambda _: kind)
    metadata = gguf_files.metadata_of(source) | gguf_files.sentencepiece(size=320)
    file = Gguf.open(gguf_files.write(tmp_path / "m.gguf", "phi3", metadata, tensors))
    weight = open_gguf(file)["model.layers.1.self_attn.qkv_proj.weight"]
    parts = [tensors[f"blk.1.attn_{name}.weight"] for name in "qkv"]
    expected = np.concatenate([gguf_files.gguf.quants.dequantize(*_typed(part)) for part in parts]).astype(np.float32)
    assert weight.shape == expected.shape == weight.raw.shape
    assert np.array_equal(weight.float32(), expected)
    for rows in (slice(3, 9), slice(60, 70), slice(0, None, 16), slice(5, 90, 7), slice(95, 96), slice(40, 40)):
        assert np.array_equal(weight.float32(rows), expected[rows])
    assert np.array_equal(weight.float16(slice(60, 70)), expected[60:70].astype(np.float16))
    out = np.empty(6 * weight.shape[1], np.float32)
    assert weight.float32(slice(62, 68), out).base is out
    assert np.array_equal(out, expected[62:68].reshape(-1))


def _typed(part):
    return part[0], gguf_files.gguf.GGMLQuantizationType[part[1]]


def test_values_that_are_not_finite_are_named(tmp_path):
    source = write_random(tmp_path / "source", TINY["phi-4"], dtype="F32")
    tensors = gguf_files.tensors_of(source)
    tensors["blk.0.ffn_down.weight"][3, 4] = np.inf
    metadata = gguf_files.metadata_of(source) | gguf_files.sentencepiece(size=320)
    weights = open_gguf(Gguf.open(gguf_files.write(tmp_path / "m.gguf", "phi3", metadata, tensors)))
    down = weights["model.layers.0.mlp.down_proj.weight"]
    assert np.isinf(down.float32(check=False)).sum() == 1
    down.check_finite(slice(0, 3))
    for read in (down.float32, down.float16, lambda: down.check_finite(slice(3, 4))):
        with pytest.raises(ModelError, match=r"down_proj\.weight has values that are not finite"):
            read()


def layout_of(tmp_path, name="phi-4", config=None, tensors=(), architecture="phi3", **changes):
    """The layout of a file with changed metadata and tensors, of which None takes one away."""
    source = write_random(tmp_path / "source", {**TINY[name], **(config or {})}, dtype="F32")
    llama = architecture == "llama"
    made = gguf_files.tensors_of(source, fused=not llama, permuted=llama) | dict(tensors)
    made = {key: value for key, value in made.items() if value is not None}
    metadata = gguf_files.metadata_of(source, architecture) | gguf_files.sentencepiece(size=320)
    metadata |= {key.replace("__", "."): value for key, value in changes.items()}
    return read_layout(Gguf.open(gguf_files.write(tmp_path / "m.gguf", architecture, metadata, made)))


def test_a_window_that_old_files_leave_out(tmp_path):
    long = {"max_position_embeddings": 4096, "original_max_position_embeddings": 4096}
    window = "phi3.attention.sliding_window"
    for case, (given, expected) in enumerate([(None, 2047), (0, None), (512, 512)]):
        (folder := tmp_path / str(case)).mkdir()
        assert layout_of(folder, config=long, **{window: given}).config["sliding_window"] == expected
    (folder := tmp_path / "short").mkdir()
    assert layout_of(folder, **{window: None}).config["sliding_window"] is None


def test_a_factor_of_attention_of_its_own_is_kept(tmp_path):
    assert "attention_factor" not in layout_of(tmp_path, "phi-4-mini").config["rope_scaling"]
    (folder := tmp_path / "own").mkdir()
    said = {"phi3.rope.scaling.attn_factor": 1.25}
    assert layout_of(folder, "phi-4-mini", **said).config["rope_scaling"]["attention_factor"] == 1.25


ROWS = np.ones((320, 64), np.float32)


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        ({"general.type": "adapter"}, "is an adapter"),
        ({"general.type": "mmproj"}, "reads images, not a model"),
        ({"general.type": "imatrix"}, "is an importance matrix"),
        ({"architecture": "clip"}, "reads images, not a model"),
        ({"architecture": "bert"}, "is an embedding model of the architecture 'bert'"),
        ({"architecture": "qwen2"}, "has the architecture 'qwen2', which is not Phi-3's"),
        ({"architecture": "phimoe"}, "has the architecture 'phimoe', which is not Phi-3's"),
        ({"phi3.block_count": 3}, "tensors of 3 layers of Phi-3: see 'blk.2.attn_k.weight', which it lacks"),
        ({"phi3.block_count": 1}, "see 'blk.1.attn_norm.weight', for which Phi-3 has no place"),
        ({"phi3.attention.head_count": 0}, "which do not fit"),
        ({"phi3.attention.head_count_kv": 3}, "which do not fit"),
        ({"phi3.attention.key_length": 24}, "which do not fit|of shape"),
        ({"phi3.attention.value_length": 24}, "values of another width than keys"),
        ({"phi3.rope.dimension_count": 17}, "rotates 17 dimensions of heads of 16"),
        ({"phi3.rope.freq_base": "high"}, "no positive number 'phi3.rope.freq_base'"),
        ({"phi3.attention.layer_norm_rms_epsilon": None}, "no positive number 'phi3.attention.layer_norm_rms_eps"),
        ({"phi3.rope.scaling.type": "linear", "phi3.rope.scaling.factor": 4.0}, "by 'linear', which Phi-3 does not"),
        ({"phi3.expert_count": 8}, "is a mixture of experts"),
        ({"tensors": {"blk.0.attn_qkv.bias": np.ones(96, np.float32)}}, "see 'blk.0.attn_qkv.bias', for which"),
        (
            {"tensors": {"rope_factors_long.weight": np.ones(8, np.float32)}},
            "no 8 numbers in the tensor 'rope_factors_s",
        ),
        ({"tensors": {"output_norm.weight": None}}, "see 'output_norm.weight', which it lacks"),
        ({"tensors": {"output.weight": np.ones((9, 64), np.float32)}}, r"shape \[9, 64\], not \[320, 64\]"),
        ({"tensors": {"output.weight": (np.zeros((320, 34), np.uint8), "Q8_0")}}, r"shape \[320, 32\], not"),
        ({"tensors": {"output.weight": (np.zeros((320, 36), np.uint8), "IQ4_NL")}}, "of the type IQ4_NL, which is not"),
    ],
)
def test_what_is_no_phi3_is_refused(tmp_path, case, problem):
    case = dict(case)
    with pytest.raises(ModelError, match=problem) as caught:
        layout_of(tmp_path, architecture=case.pop("architecture", "phi3"), tensors=case.pop("tensors", {}), **case)
    assert str(tmp_path / "m.gguf") in caught.value.message


def test_a_llama_with_more_than_phi3_is_refused(tmp_path):
    scaled = {"rope_freqs.weight": np.ones(8, np.float32)}
    with pytest.raises(ModelError, match=r"see 'rope_freqs\.weight', for which Phi-3 has no place"):
        layout_of(tmp_path, architecture="llama", tensors=scaled)


def test_damaged_bytes_do_nothing_worse_than_an_error(tmp_path):
    source = write_random(tmp_path / "source", TINY["phi-4-mini"])
    data = gguf_files.convert(source, tmp_path / "m.gguf").read_bytes()
    header = data.rfind(b"rope_factors_short.weight") + 64
    chance, outcomes = random.Random(3), set()
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.choice((chance.randrange(1200), chance.randrange(header)))] = chance.choice(
                (0, 1, 9, 128, 255)
            )
        (path := tmp_path / "damaged.gguf").write_bytes(damaged)
        try:
            open_gguf(Gguf.open(path))
            outcomes.add("read")
        except ModelError as error:
            outcomes.add("refused" if "\n" not in str(error) else str(error))
    assert outcomes == {"read", "refused"}


def test_tokens_beyond_the_embedding_are_refused(tmp_path):
    tokens = [*gguf_files.sentencepiece(size=320)["tokenizer.ggml.tokens"], "more"]
    with pytest.raises(ModelError, match="has 321 tokens, and an embedding of 320 rows"):
        layout_of(tmp_path, **{"tokenizer.ggml.tokens": tokens})


def test_a_vocabulary_alone_is_named(tmp_path):
    path = gguf_files.write(tmp_path / "v.gguf", "phi3", gguf_files.sentencepiece(), {})
    with pytest.raises(ModelError, match="has a vocabulary and no weights"):
        read_layout(Gguf.open(path))

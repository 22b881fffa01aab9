"""GGUF files are described, and damaged ones refused: at once, in one line, whatever is in them."""

import json
import random
import struct
import tracemalloc
from pathlib import Path

import pytest
from phi3_core.checkpoint import gguf_tokenizer
from phi3_core.checkpoint.gguf import Gguf, check, describe_gguf
from phi3_core.errors import ModelError, StoreError

gguf = pytest.importorskip("gguf", reason='pip install "phi3-core[sample]"')
np = pytest.importorskip("numpy", reason='pip install "phi3-core[sample]"')

TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abcĠĊ12", "ab", "Ġab", "<tool>"]
TYPES = [3, 3, 3, *[1] * 9, 4]
HUGE = 2**60


def write(path: Path, *, pre: str = "smollm", tensors: dict | None = None, **changes) -> Path:
    """A small whole file; ``changes`` replace metadata, where None leaves the key out."""
    writer = gguf.GGUFWriter(path, "llama")
    metadata = {
        "general.name": "tiny",
        "llama.context_length": 64,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": TYPES,
        "tokenizer.ggml.merges": ["a b", "Ġ ab"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": "{{ messages }}",
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    for key, value in metadata.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif value is not None:
            writer.add_array(key, value)
    tensors = {"a.weight": np.ones((4, 32), np.float16), "n.weight": np.ones(32, np.float32)} | (tensors or {})
    for name, value in tensors.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_tokenizer(path: Path, folder: Path) -> None:
    gguf_tokenizer.write_tokenizer(Gguf.open(path), folder)


def refused(path: Path) -> str:
    """The one line that a file is refused with. What the file claims to hold is not given memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ModelError) as caught:
            check(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20
    assert str(path) in caught.value.message
    assert "\n" not in str(caught.value)
    return caught.value.message.removeprefix(f"{path} ")


@pytest.fixture
def whole(tmp_path) -> Path:
    return write(tmp_path / "m.gguf")


def test_what_a_file_says_about_itself(whole):
    check(whole)
    found = describe_gguf(whole)
    assert (found.architecture, found.name, found.context_length) == ("llama", "tiny", 64)
    assert (found.bos_id, found.eos_id, found.chat_template) == (1, 2, "{{ messages }}")
    assert found.stop_ids == (2, 0), "the end of a text ends an answer too"


def test_what_is_not_said_is_none(tmp_path):
    bare = {"general.name": None, "tokenizer.chat_template": None, "tokenizer.ggml.bos_token_id": None}
    found = describe_gguf(write(tmp_path / "bare.gguf", **bare))
    assert (found.name, found.chat_template, found.bos_id) == ("bare", None, None)


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        ("Q4_0", "int4"),
        ("Q4_1", "int4"),
        ("Q5_0", "int8"),
        ("Q4_K", "int4"),
        ("Q6_K", "int8"),
        ("Q8_0", "int8"),
        ("F16", "fp16"),
        ("F32", "fp16"),
    ],
)
def test_the_precision_is_that_of_most_weights(tmp_path, kind, precision):
    _, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    size *= 32 if kind.startswith("F") else 1
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(8)
    writer.add_tensor("w", np.zeros((64, size), np.uint8), raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.add_tensor("n", np.zeros(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert describe_gguf(path).precision == precision


def test_every_cut_is_noticed(whole, tmp_path):
    data = whole.read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in range(0, len(data), 7):
        cut.write_bytes(data[:length])
        assert any(word in refused(cut) for word in ("truncated", "empty", "not a GGUF file"))
    cut.write_bytes(data[:-40])
    assert refused(cut).startswith(f"is truncated: {len(data) - 40} of ")


def test_a_damaged_byte_does_nothing_worse_than_an_error(whole, tmp_path):
    data = whole.read_bytes()
    chance = random.Random(1)
    path = tmp_path / "m.gguf"
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(data) // 2)] = chance.choice((0, 1, 9, 127, 255))
        path.write_bytes(damaged)
        try:
            file = Gguf.open(path)
            file.describe()
            gguf_tokenizer.write_tokenizer(file, tmp_path)
        except ModelError:
            pass


def header(*, version: int = 3, tensors: int = 0, entries: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + rest


def entry(kind: int, value: bytes, key: bytes = b"k") -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


def tensor(*, dims: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    counts = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return struct.pack("<Q", 1) + b"t" + counts + struct.pack("<IQ", kind, offset)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is empty"),
        (b"\x00", "is not a GGUF file"),
        (b"GGUF", "truncated"),
        (random.Random(0).randbytes(100_000), "is not a GGUF file"),
        (header(version=1), "has GGUF version 1"),
        (header(version=3 << 24), "is a GGUF file for big-endian processors"),
        (header(tensors=HUGE), "truncated or damaged"),
        (header(entries=HUGE), "truncated or damaged"),
        (header(entries=99_999, rest=bytes(2_000_000)), "claims 0 tensors and 99999 entries"),
        (header(entries=1, rest=struct.pack("<Q", HUGE) + bytes(99)), "truncated or damaged"),
        (header(entries=1, rest=entry(8, struct.pack("<Q", HUGE))), "truncated or damaged"),
        (header(entries=1, rest=entry(9, struct.pack("<IQ", 4, HUGE) + bytes(99))), "truncated or damaged"),
        (header(entries=1, rest=entry(9, struct.pack("<IQ", 8, HUGE) + bytes(99))), "truncated or damaged"),
        (header(entries=1, rest=entry(9, struct.pack("<IQ", 8, 3 << 20) + bytes(3 << 23))), "list of 3145728 texts"),
        (header(entries=1, rest=entry(9, struct.pack("<IQ", 9, HUGE))), "has a list of the unknown type 9"),
        (header(entries=1, rest=entry(77, bytes(9))), "has metadata of the unknown type 77"),
        (header(entries=2, rest=entry(0, b"1") * 2), "has 'k' twice"),
        (
            header(tensors=1, entries=1, rest=entry(4, struct.pack("<I", 3), b"general.alignment") + tensor()),
            "has the impossible alignment 3",
        ),
        (header(tensors=1, rest=tensor(dims=(HUGE, HUGE))), "is truncated: 65 of "),
        (header(tensors=1, rest=tensor(dims=(1,) * 5)), "has the tensor 't' with 5 dimensions"),
        (header(tensors=1, rest=tensor(dims=(0, 1))), "impossible shape [1, 0]"),
        (header(tensors=1, rest=tensor(dims=(31,), kind=2)), "impossible shape [31]"),
        (header(tensors=1, rest=tensor(kind=9999)), "unknown type 9999"),
        (header(tensors=1, rest=tensor(offset=HUGE)), "is truncated: 57 of "),
        (header(tensors=1, rest=tensor(offset=3) + bytes(999)), "impossible offset 3"),
        (header(tensors=2, rest=tensor() * 2 + bytes(999)), "has the tensor 't' twice"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, data, problem):
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    assert problem in refused(path)


def test_a_folder_and_nothing_at_all(tmp_path):
    assert refused(tmp_path) == "is not a file"
    assert refused(tmp_path / "none.gguf").startswith("cannot be read: ")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"llama.context_length": "long"}, "no whole number 'llama.context_length'"),
        ({"tokenizer.chat_template": 5}, "no text 'tokenizer.chat_template'"),
        ({"tokenizer.ggml.eos_token_id": 99}, "names token 99"),
        ({"tokenizer.ggml.tokens": None}, "has 0 tokens"),
    ],
)
def test_a_description_that_makes_no_sense(tmp_path, changes, problem):
    with pytest.raises(ModelError, match=problem):
        describe_gguf(write(tmp_path / "m.gguf", **changes))


def test_the_tokenizer_keeps_the_ids(whole, tmp_path):
    from tokenizers import Tokenizer

    write_tokenizer(whole, tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [tokenizer.id_to_token(i) for i in range(len(TOKENS))] == TOKENS
    assert tokenizer.encode("<|im_start|>ab ab\n12<tool>").ids == [1, 10, 11, 7, 8, 9, 12]
    assert tokenizer.decode([1, 10, 11, 12]) == "ab ab<tool>", "special tokens are left out, others stay"
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert (settings["bos_token"], settings["eos_token"]) == ("<|im_start|>", "<|im_end|>")
    assert settings["chat_template"] == "{{ messages }}"
    generation = json.loads((tmp_path / "generation_config.json").read_text(encoding="utf-8"))
    assert generation == {"bos_token_id": 1, "eos_token_id": [2, 0]}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"pre": "qwen2"}, "tokenizer of an unknown kind: 'gpt2' with 'qwen2'"),
        ({"tokenizer.ggml.model": "llama"}, "tokenizer of an unknown kind: 'llama' with 'smollm'"),
        ({"tokenizer.ggml.model": "llama", "pre": "default"}, "tokens without a score"),
        ({"tokenizer.ggml.model": "t5"}, "tokenizer of an unknown kind: 't5'"),
        ({"tokenizer.ggml.model": None}, "no text 'tokenizer.ggml.model'"),
        ({"tokenizer.ggml.merges": ["x y"]}, "damaged tokenizer"),
        ({"tokenizer.ggml.merges": 5}, "damaged tokenizer"),
        ({"tokenizer.ggml.merges": None}, "damaged tokenizer"),
        ({"tokenizer.ggml.tokens": ["a"] * 13}, "damaged tokenizer"),
        ({"tokenizer.ggml.token_type": [1]}, "damaged tokenizer"),
    ],
)
def test_a_tokenizer_that_cannot_be_built(tmp_path, changes, problem):
    with pytest.raises(ModelError, match=problem):
        write_tokenizer(write(tmp_path / "m.gguf", **changes), tmp_path)
    assert not (tmp_path / "tokenizer.json").exists()


def test_a_folder_that_cannot_be_written(whole, tmp_path):
    with pytest.raises(StoreError, match="cannot be written"):
        write_tokenizer(whole, tmp_path / "none")

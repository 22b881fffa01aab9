"""Writes GGUF files for tests, as llama.cpp's converter makes them from a Phi-3 checkpoint.

Tests that import this are skipped where its package, of the extra ``sample``, is not installed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from phi3_core.checkpoint import gguf_parts
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.gguf import Gguf
from phi3_core.checkpoint.gguf_layout import read_layout
from phi3_core.checkpoint.gguf_tokenizer import write_tokenizer

gguf = pytest.importorskip("gguf", reason='pip install "phi3-core[sample]"')

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}{{ '<|assistant|>\\n' }}"
)
PHI3_ENDS = ["<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]


def sentencepiece(words: Sequence[str] = (), size: int | None = None) -> dict[str, Any]:
    """The metadata of a tokenizer like Phi-3's: bytes, words by falling score, characters, control tokens."""
    single = ["▁", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *words, *single, *PHI3_ENDS]
    plain = len(words) + len(single)
    types = [2, 3, 4, *[6] * 256, *[1] * plain, *[3] * len(PHI3_ENDS)]
    scores = [*[0.0] * 259, *[-float(place) for place in range(plain)], *[-1000.0] * len(PHI3_ENDS)]
    while size is not None and len(tokens) < size:
        tokens.append(f"[PAD{len(tokens)}]")
        types.append(5)
        scores.append(-10000.0)
    return {
        **_ids(tokens, bos="<s>", eos="<|endoftext|>", unknown="<unk>", padding="<|endoftext|>"),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": scores,
    }


def byte_level(pre: str | None, ends: Sequence[str] = PHI3_ENDS, size: int | None = None) -> dict[str, Any]:
    """The metadata of a byte-level tokenizer with a few merges."""
    alphabet = gguf_alphabet()
    merges = ["a b", "Ġ a", "t h", "th e", "1 2", "12 3"]
    tokens = [*alphabet, *(merge.replace(" ", "") for merge in merges), *ends]
    types = [*[1] * (len(tokens) - len(ends)), *[3] * len(ends)]
    while size is not None and len(tokens) < size:
        tokens.append(f"[PAD{len(tokens)}]")
        types.append(5)
    found = {
        **_ids(tokens, bos=ends[0], eos=ends[0]),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
    }
    return {key: value for key, value in found.items() if value is not None}


def gguf_alphabet() -> list[str]:
    """The characters that stand for bytes in byte-level vocabularies."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _ids(tokens: Sequence[str], **roles: str) -> dict[str, Any]:
    return {f"tokenizer.ggml.{role}_token_id": tokens.index(token) for role, token in roles.items()}


def write(path: Path, architecture: str, metadata: Mapping[str, Any], tensors: Mapping[str, Any]) -> Path:
    """Write a file. A tensor is an array, or blocks with the name of their type; None leaves a key out."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif value is not None:
            writer.add_array(key, list(value))
    for name, value in tensors.items():
        blocks, kind = value if isinstance(value, tuple) else (value, None)
        writer.add_tensor(name, blocks, raw_dtype=None if kind is None else gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def metadata_of(folder: Path, architecture: str = "phi3") -> dict[str, Any]:
    """The metadata that llama.cpp's converter makes of a ``config.json``, without the tokenizer."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    heads, context = config["num_attention_heads"], config["max_position_embeddings"]
    original = config["original_max_position_embeddings"]
    said = {
        "context_length": context,
        "rope.scaling.original_context_length": original,
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "block_count": config["num_hidden_layers"],
        "attention.head_count": heads,
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.dimension_count": int(config.get("partial_rotary_factor", 1.0) * config["hidden_size"]) // heads,
        "rope.freq_base": config["rope_theta"],
        "attention.sliding_window": config["sliding_window"] or 0,
    }
    if config.get("rope_scaling"):
        said["rope.scaling.attn_factor"] = math.sqrt(1 + math.log(context / original) / math.log(original))
    named = {"general.name": "Tiny Phi 3", "tokenizer.chat_template": TEMPLATE}
    return named | {f"{architecture}.{key}": value for key, value in said.items()}


def tensors_of(
    folder: Path, *, fused: bool = True, permuted: bool = False, kind: Callable[[str], str | None] = lambda _: None
) -> dict[str, Any]:
    """The tensors that llama.cpp's converter makes of a checkpoint.

    Args:
        folder: a Phi-3 checkpoint.
        fused: whether query, key and value stay one matrix, and gate and up.
        permuted: whether the rows of query and key are put in pairs, as in files of the architecture llama.
        kind: returns the type to quantize the tensor of a name to; None keeps it.
    """
    checkpoint = Checkpoint.open(folder)
    shape = checkpoint.architecture
    found: dict[str, NDArray[np.float32]] = {"token_embd": checkpoint.embedding.float32()}
    for index, layer in enumerate(checkpoint.layers):
        each = {"attn_norm": layer.input_norm, "attn_output": layer.output, "ffn_norm": layer.post_norm}
        here = {name: weight.float32() for name, weight in (each | {"ffn_down": layer.down}).items()}
        qkv, gate_up = layer.qkv.float32(), layer.gate_up.float32()
        if fused:
            here |= {"attn_qkv": qkv, "ffn_up": gate_up}
        else:
            q, k, v = np.split(qkv, [shape.q_width, shape.q_width + shape.kv_width])
            if permuted:
                q, k = _paired(q, shape.heads), _paired(k, shape.key_value_heads)
            gate, up = np.split(gate_up, 2)
            here |= {"attn_q": q, "attn_k": k, "attn_v": v, "ffn_gate": gate, "ffn_up": up}
        found |= {f"blk.{index}.{name}": value for name, value in here.items()}
    found["output_norm"] = checkpoint.norm.float32()
    if checkpoint.head is not checkpoint.embedding:
        found["output"] = checkpoint.head.float32()
    tensors: dict[str, Any] = {}
    for name, value in found.items():
        wanted = kind(name) if value.ndim == 2 else None
        tensors[f"{name}.weight"] = value if wanted is None else quantized(value, wanted)
    if shape.rotary.long is not None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for key in ("long", "short"):
            factors = config["rope_scaling"][f"{key}_factor"]
            tensors[f"rope_factors_{key}.weight"] = np.array(factors, np.float32)
    return tensors


def quantized(values: NDArray[np.float32], kind: str) -> tuple[Any, str]:
    """Values in blocks of a type, and its name."""
    return gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind]), kind


def _paired(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of q or k in the order of Llama's files: the two columns that turn together lie side by side."""
    count, columns = rows.shape
    return rows.reshape(heads, 2, count // heads // 2, columns).swapaxes(1, 2).reshape(count, columns)


def convert(folder: Path, path: Path, architecture: str = "phi3", **changes: Any) -> Path:
    """Write the GGUF file of a checkpoint, with a tokenizer like Phi-3's; ``changes`` are those of its metadata.

    Its context is not one at which a missing sliding window would be made up.
    """
    llama = architecture == "llama"
    tensors = tensors_of(folder, fused=not llama, permuted=llama)
    words = tensors["token_embd.weight"].shape[0]
    metadata = {**metadata_of(folder, architecture), **sentencepiece(size=words), **changes}
    return write(path, architecture, metadata, tensors)


def convert_in_parts(folder: Path, paths: Sequence[Path]) -> Sequence[Path]:
    """Write the GGUF file of a checkpoint as parts, whose names are for the caller to choose."""
    tensors = tensors_of(folder)
    said = {**metadata_of(folder), **sentencepiece(size=tensors["token_embd.weight"].shape[0])}
    for index, path in enumerate(paths):
        split = {"split.no": index, "split.count": len(paths)} | (said if index == 0 else {})
        write(path, "phi3", split, dict(list(tensors.items())[index :: len(paths)]))
    return paths


def linked(file: Path, folder: Path) -> Path:
    """Make the folder that stands for a GGUF file, as core does in the store."""
    found = Gguf.open(file)
    folder.mkdir()
    write_tokenizer(found, folder)
    (folder / "config.json").write_text(json.dumps(read_layout(found).config), encoding="utf-8")
    (folder / gguf_parts.LINK).write_text(json.dumps({"file": str(file)}), encoding="utf-8")
    return folder

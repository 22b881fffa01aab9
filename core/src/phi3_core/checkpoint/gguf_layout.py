"""The Phi-3 checkpoint that a GGUF file amounts to: its ``config.json``, and which tensors make up each weight.

llama.cpp's converter keeps Phi-3's fused matrices (``attn_qkv``, and gate with up in ``ffn_up``); others write them
separately. A model of the Llama architecture is a Phi-3 with separate matrices, if it has nothing that Phi-3 lacks.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from phi3_core.errors import ModelError

from .gguf import Gguf
from .gguf_header import Tensor
from .gguf_types import READ, TYPES

_FAMILY = ("phi3", "llama")
_EMBEDDERS = ("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "gemma-embedding", "t5encoder")
_OTHER_KINDS = {
    "adapter": ("is an adapter (LoRA), not a model", "merge it into its model, and use the merged model"),
    "mmproj": ("is the part of a model that reads images, not a model", "name the file of the model itself"),
    "imatrix": ("is an importance matrix, not a model", "name the file of the model itself"),
}
"""What ``general.type`` says of files that are no models, with a hint."""
_HINT = "use a GGUF file of Phi-3, Phi-3.5 or Phi-4, or the model's Hugging Face checkpoint"
_FACTORS = {"short_factor": "rope_factors_short.weight", "long_factor": "rope_factors_long.weight"}
_WINDOW, _WINDOW_CONTEXT = 2047, 4096
"""The sliding window of Phi-3-mini-4k and Phi-3-medium-4k. Files of early 2024 do not record it."""


@frozen(kw_only=True)
class Part:
    """A tensor of the file, as one of those that are stacked by rows to a weight."""

    name: str
    heads: int | None = None
    """Number of heads whose rows are interleaved pairs for RoPE; None if the rows are in Phi-3's order."""


@frozen(kw_only=True)
class Layout:
    """A Phi-3 checkpoint, made of the tensors of a GGUF file."""

    config: Mapping[str, Any]
    """The content of ``config.json``."""
    weights: Mapping[str, Sequence[Part]]
    """The tensors that make up each weight, by its name in the checkpoint."""


def read_layout(gguf: Gguf) -> Layout:
    """Return the layout of the model in a GGUF file.

    Raises:
        ModelError: the file is not a model of the Phi-3 family, or has tensors of an unsupported type.
    """
    _check_kind(gguf)
    config = _config(gguf)
    _scale_rope(gguf, config)
    return Layout(config=config, weights=_checked_weights(gguf, config))


def check_header(gguf: Gguf, *, whole: bool) -> None:
    """Check what the header of a GGUF file tells by itself, before the file is fetched.

    Args:
        gguf: the header.
        whole: whether the file has all of the model's tensors, and not a part of them.

    Raises:
        ModelError: the file is not a model of the Phi-3 family, or has tensors of an unsupported type.
    """
    _check_kind(gguf, whole=whole)
    _check_types(gguf, gguf.tensors.values())


def check_layout(gguf: Gguf) -> None:
    """Check that a model is one of the Phi-3 family, as :func:`read_layout` does, before the file is fetched.

    Args:
        gguf: the header, with all of the model's tensors.

    Raises:
        ModelError: the model has settings or tensors that Phi-3 does not have.
    """
    config = _config(gguf)
    _rope_factors(gguf, config)
    _checked_weights(gguf, config)


def _checked_weights(gguf: Gguf, config: Mapping[str, Any]) -> dict[str, list[Part]]:
    """Return the tensors that make up each weight after checking names, types and shapes."""
    weights = _weights(gguf, config)
    _check_types(gguf, (gguf.tensors[part.name] for made_of in weights.values() for part in made_of))
    _check_shapes(gguf, config, weights)
    return weights


def _check_kind(gguf: Gguf, *, whole: bool = True) -> None:
    """Check that the file is a model of one of the architectures."""
    kind = str(gguf.metadata.get("general.type", "model"))
    architecture = gguf.metadata.get("general.architecture")
    if architecture == "clip":
        kind = "mmproj"
    if kind in _OTHER_KINDS:
        problem, hint = _OTHER_KINDS[kind]
        raise ModelError(f"{gguf.path} {problem}", hint=hint)
    architecture = gguf.architecture
    if architecture in _EMBEDDERS:
        raise ModelError(f"{gguf.path} is an embedding model of the architecture {architecture!r}", hint=_HINT)
    if architecture not in _FAMILY:
        raise ModelError(f"{gguf.path} has the architecture {architecture!r}, which is not Phi-3's", hint=_HINT)
    if whole and not gguf.tensors:
        raise ModelError(f"{gguf.path} has a vocabulary and no weights", hint="name the file of the model itself")


def _check_types(gguf: Gguf, tensors: Iterable[Tensor]) -> None:
    kinds = {TYPES[tensor.type] for tensor in tensors}
    if unread := sorted(kind.name for kind in kinds if not kind.read):
        raise ModelError(
            f"{gguf.path} has weights of the type {', '.join(unread)}, which is not read",
            hint=f"use a file with {', '.join(READ[2:])} or F16",
        )


def _config(gguf: Gguf) -> dict[str, Any]:
    said = _Said(gguf)
    hidden, heads = said.number("embedding_length"), said.number("attention.head_count")
    if min(hidden, heads) < 1:
        raise ModelError(f"{gguf.path} has {heads} heads on {hidden} columns, which do not fit")
    size = said.number("attention.key_length", hidden // heads)
    context = said.number("context_length")
    embedding = gguf.tensors.get("token_embd.weight")
    config = {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "vocab_size": len(gguf.tokens) if embedding is None else embedding.shape[0],
        "hidden_size": hidden,
        "intermediate_size": said.number("feed_forward_length"),
        "num_hidden_layers": said.number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": said.number("attention.head_count_kv", heads),
        "hidden_act": "silu",
        "rms_norm_eps": float(f"{said.real('attention.layer_norm_rms_epsilon'):.6g}"),  # 1e-05, stored in 32 bits
        "rope_theta": said.real("rope.freq_base", 10_000.0),
        "rope_scaling": None,
        "partial_rotary_factor": _rotated_share(gguf, said.number("rope.dimension_count", size), size),
        "max_position_embeddings": context,
        "original_max_position_embeddings": said.number("rope.scaling.original_context_length", context),
        "sliding_window": said.number("attention.sliding_window", 0) or None,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": "output.weight" not in gguf.tensors,
        "torch_dtype": "float16",
        "use_cache": True,
        "bos_token_id": gguf.token_id("bos"),
        "eos_token_id": gguf.token_id("eos"),
        "pad_token_id": gguf.token_id("padding"),
    }
    if size * heads != hidden:
        config["head_dim"] = size
    if said.number("attention.value_length", size) != size:
        raise ModelError(f"{gguf.path} has values of another width than keys, which Phi-3 does not have", hint=_HINT)
    if said.number("expert_count", 0):
        raise ModelError(f"{gguf.path} is a mixture of experts, which Phi-3 is not", hint=_HINT)
    if gguf.architecture == "phi3" and context == _WINDOW_CONTEXT and said.lacks("attention.sliding_window"):
        config["sliding_window"] = _WINDOW
    return config


def _rotated_share(gguf: Gguf, rotated: int, size: int) -> float:
    """Return the share of a head of ``size`` dimensions that is rotated, whose product with it is ``rotated`` again."""
    if not 0 < rotated <= size or rotated % 2:
        raise ModelError(f"{gguf.path} rotates {rotated} dimensions of heads of {size}, which do not fit")
    share = rotated / size
    return share if int(size * share) == rotated else math.nextafter(share, 1.0)


def _rope_factors(gguf: Gguf, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors with LongRoPE's factors, by their names in ``config.json``; none without LongRoPE."""
    said = _Said(gguf)
    if not any(name in gguf.tensors for name in _FACTORS.values()):
        kind = str(gguf.metadata.get(said.key("rope.scaling.type"), "none"))
        if kind != "none" and said.real("rope.scaling.factor", 1.0) != 1:
            raise ModelError(f"{gguf.path} scales its rotary embedding by {kind!r}, which Phi-3 does not", hint=_HINT)
        return {}
    count = int(config["partial_rotary_factor"] * said.head_size(config)) // 2
    return {key: _float_tensor(gguf, name, count) for key, name in _FACTORS.items()}


def _scale_rope(gguf: Gguf, config: dict[str, Any]) -> None:
    """Add the scaling of the rotary embedding to ``config``."""
    factors = _rope_factors(gguf, config)
    if not factors:
        return
    scaling: dict[str, Any] = {"type": "longrope", **{key: _floats(tensor) for key, tensor in factors.items()}}
    context, original = config["max_position_embeddings"], config["original_max_position_embeddings"]
    ratio = context / max(original, 1)
    usual = math.sqrt(1 + math.log(ratio) / math.log(original)) if ratio > 1 and original > 1 else 1.0
    given = _Said(gguf).real("rope.scaling.attn_factor", usual)
    if abs(given - usual) > 1e-5 * usual:  # stored in 32 bits
        scaling["attention_factor"] = given
    config["rope_scaling"] = scaling


def _float_tensor(gguf: Gguf, name: str, count: int) -> Tensor:
    """Return a tensor after checking that it consists of ``count`` numbers."""
    tensor = gguf.tensors.get(name)
    if tensor is None or TYPES[tensor.type].name != "F32" or math.prod(tensor.shape) != count:
        raise ModelError(f"{gguf.path} has no {count} numbers in the tensor {name!r}, which LongRoPE needs")
    return tensor


def _floats(tensor: Tensor) -> list[float]:
    """Return the numbers of a short tensor."""
    count = math.prod(tensor.shape)
    try:
        with tensor.file.open("rb") as file:
            file.seek(tensor.offset)
            found = struct.unpack(f"<{count}f", file.read(tensor.size))
    except OSError as error:
        raise ModelError(f"{tensor.file} cannot be read: {error.strerror or error}") from error
    return [float(f"{value:.8g}") for value in found]


def _weights(gguf: Gguf, config: Mapping[str, Any]) -> dict[str, list[Part]]:
    """Return the tensors that make up each weight; the file has these and no others."""
    layers = config["num_hidden_layers"]
    permuted = gguf.architecture == "llama"
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    weights = {"model.embed_tokens.weight": [Part(name="token_embd.weight")]}
    for layer in range(min(layers, len(gguf.tensors))):
        here = f"blk.{layer}."
        if f"{here}attn_qkv.weight" in gguf.tensors and not permuted:
            qkv = [Part(name=f"{here}attn_qkv.weight")]
        else:
            qkv = [
                Part(name=f"{here}attn_q.weight", heads=heads if permuted else None),
                Part(name=f"{here}attn_k.weight", heads=kv_heads if permuted else None),
                Part(name=f"{here}attn_v.weight"),
            ]
        gate = [f"{here}ffn_gate.weight"] if permuted or f"{here}ffn_gate.weight" in gguf.tensors else []
        each = {
            "input_layernorm": [Part(name=f"{here}attn_norm.weight")],
            "self_attn.qkv_proj": qkv,
            "self_attn.o_proj": [Part(name=f"{here}attn_output.weight")],
            "post_attention_layernorm": [Part(name=f"{here}ffn_norm.weight")],
            "mlp.gate_up_proj": [Part(name=name) for name in (*gate, f"{here}ffn_up.weight")],
            "mlp.down_proj": [Part(name=f"{here}ffn_down.weight")],
        }
        weights |= {f"model.layers.{layer}.{name}.weight": made_of for name, made_of in each.items()}
    weights["model.norm.weight"] = [Part(name="output_norm.weight")]
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = [Part(name="output.weight")]
    wanted = {part.name for made_of in weights.values() for part in made_of}
    if odd := wanted ^ (gguf.tensors.keys() - _FACTORS.values()):
        which = min(odd, key=lambda name: (name not in wanted, name))
        problem = "which it lacks" if which in wanted else "for which Phi-3 has no place"
        raise ModelError(
            f"{gguf.path} does not have the tensors of {layers} layers of Phi-3: see {which!r}, {problem}", hint=_HINT
        )
    return weights


def _check_shapes(gguf: Gguf, config: Mapping[str, Any], weights: Mapping[str, Sequence[Part]]) -> None:
    """Check the shape of every tensor against the configuration."""
    hidden, inner, heads = (config[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads"))
    kv_heads, words, size = config["num_key_value_heads"], config["vocab_size"], _Said.head_size(config)
    if min(hidden, heads, kv_heads, inner) < 1 or heads % kv_heads or ("head_dim" not in config and hidden % heads):
        raise ModelError(f"{gguf.path} has {heads} heads, {kv_heads} of keys, on {hidden} columns, which do not fit")
    q, kv = heads * size, kv_heads * size
    fused = not any(name.endswith("ffn_gate.weight") for name in gguf.tensors)
    shapes = {
        "token_embd": (words, hidden),
        "attn_qkv": (q + 2 * kv, hidden),
        "attn_q": (q, hidden),
        "attn_k": (kv, hidden),
        "attn_v": (kv, hidden),
        "attn_output": (hidden, q),
        "ffn_gate": (inner, hidden),
        "ffn_up": (2 * inner if fused else inner, hidden),
        "ffn_down": (hidden, inner),
        "output": (words, hidden),
    }
    if len(gguf.tokens) > words:
        raise ModelError(f"{gguf.path} has {len(gguf.tokens)} tokens, and an embedding of {words} rows")
    for part in (part for made_of in weights.values() for part in made_of):
        shape = gguf.tensors[part.name].shape
        if shape != (expected := shapes.get(part.name.split(".")[-2], (hidden,))):
            raise ModelError(f"{gguf.path} has the tensor {part.name!r} of shape {list(shape)}, not {list(expected)}")


@frozen
class _Said:
    """The metadata of the architecture."""

    gguf: Gguf

    def key(self, name: str) -> str:
        return f"{self.gguf.architecture}.{name}"

    def lacks(self, name: str) -> bool:
        return self.key(name) not in self.gguf.metadata

    def number(self, name: str, default: int | None = None) -> int:
        if default is not None and self.lacks(name):
            return default
        return self.gguf.number(self.key(name))

    def real(self, name: str, default: float | None = None) -> float:
        value = self.gguf.metadata.get(self.key(name), default)
        if not isinstance(value, float) or not (math.isfinite(value) and value > 0):
            raise ModelError(f"{self.gguf.path} has no positive number {self.key(name)!r} in its metadata")
        return value

    @staticmethod
    def head_size(config: Mapping[str, Any]) -> int:
        size: int = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
        return size

"""Phi-3 checkpoints with random weights: tiny ones for tests, full-size ones for benchmarks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from phi3_core.checkpoint.safetensors_writer import SafetensorsWriter, TensorSpec

_LONG = {"type": "longrope"}

TINY: Mapping[str, Mapping[str, Any]] = {
    "phi-3-mini-4k": {"sliding_window": 11},
    "phi-3-mini-128k": {"original_max_position_embeddings": 24, "rope_scaling": _LONG},
    "phi-3-medium": {"num_key_value_heads": 2, "sliding_window": 13},
    "phi-4": {"num_key_value_heads": 1, "rope_theta": 250_000.0},
    "phi-4-mini": {
        "num_key_value_heads": 2,
        "partial_rotary_factor": 0.75,
        "tie_word_embeddings": True,
        "original_max_position_embeddings": 24,
        "rope_scaling": _LONG,
    },
}
"""Settings in which the models differ, at a size at which each of them matters within 64 tokens."""

PHI_3_MINI: Mapping[str, Any] = {
    "vocab_size": 32064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
    "sliding_window": 2047,
}
"""Phi-3-mini-4k in full size: 3.8 billion parameters, 7.6 GB on disk."""

_BASE: Mapping[str, Any] = {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 96,
    "original_max_position_embeddings": 96,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "hidden_act": "silu",
    "sliding_window": None,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
_NAMES = {"F16": np.float16, "F32": np.float32}


def write_random(folder: Path, config: Mapping[str, Any], *, dtype: str = "F16", seed: int = 0) -> Path:
    """Write ``config.json`` and ``model.safetensors`` with random weights.

    Matrices are normally distributed with a variance of 2 / inputs, which keeps activations near one. Peak memory is
    that of the largest tensor.

    Args:
        folder: the folder to write to; created if missing.
        config: settings that differ from those of a tiny Phi-3.
        dtype: ``F16``, ``BF16`` or ``F32``.
        seed: seed of the random generator.

    Returns:
        ``folder``.
    """
    complete = {**_BASE, **config, "torch_dtype": {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}[dtype]}
    random = np.random.default_rng(seed)
    if complete.get("rope_scaling"):
        complete["rope_scaling"] = {**_factors(complete, random), **complete["rope_scaling"]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(complete, indent=1), encoding="utf-8")
    specs = [TensorSpec(name=name, dtype=dtype, shape=tuple(shape)) for name, shape in _tensors(complete).items()]
    with SafetensorsWriter(folder / "model.safetensors", specs) as writer:
        for spec in specs:
            writer.put(spec.name, _values(list(spec.shape), dtype, random))
    return folder


def _factors(config: Mapping[str, Any], random: np.random.Generator) -> dict[str, list[float]]:
    head = config["hidden_size"] // config["num_attention_heads"]
    half = int(head * config.get("partial_rotary_factor", 1.0)) // 2
    return {
        "short_factor": [round(float(value), 3) for value in random.uniform(1.0, 1.3, half)],
        "long_factor": [round(float(value), 3) for value in random.uniform(1.5, 8.0, half)],
    }


def _tensors(config: Mapping[str, Any]) -> dict[str, list[int]]:
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head = hidden // heads
    shapes = {"model.embed_tokens.weight": [config["vocab_size"], hidden]}
    for index in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{index}"
        shapes |= {
            f"{prefix}.input_layernorm.weight": [hidden],
            f"{prefix}.self_attn.qkv_proj.weight": [(heads + 2 * config["num_key_value_heads"]) * head, hidden],
            f"{prefix}.self_attn.o_proj.weight": [hidden, heads * head],
            f"{prefix}.post_attention_layernorm.weight": [hidden],
            f"{prefix}.mlp.gate_up_proj.weight": [2 * inner, hidden],
            f"{prefix}.mlp.down_proj.weight": [hidden, inner],
        }
    shapes["model.norm.weight"] = [hidden]
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = [config["vocab_size"], hidden]
    return shapes


def _values(shape: list[int], dtype: str, random: np.random.Generator) -> np.ndarray[Any, Any]:
    values = random.standard_normal(shape, np.float32)
    if len(shape) == 1:
        values = np.float32(1) + values / np.float32(10)
    else:
        values *= np.float32(math.sqrt(2 / shape[1]))
    if dtype == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(_NAMES[dtype])

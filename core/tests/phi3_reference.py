"""A Phi-3 forward pass in plain numpy and float32, written from the architecture to hold engines against.

Shapes: ``ids [t]`` -> ``logits [t, vocabulary]``. Per layer, with ``h`` heads, ``k`` key-value heads of ``d``
columns and hidden size ``n = h * d``: ``qkv_proj [(h + 2k) * d, n]``, ``o_proj [n, n]``, ``gate_up_proj [2i, n]``,
``down_proj [n, i]``, norms ``[n]``. Full attention over everything before, so no sliding window; no scaled rotary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

Floats = NDArray[np.float32]


class Phi3Reference:
    """A checkpoint folder, held in float32."""

    def __init__(self, folder: Path) -> None:
        self.config: Mapping[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        files = sorted(folder.glob("*.safetensors"))
        loaded = {name: value for file in files for name, value in load_file(file).items()}
        self.weights: dict[str, Floats] = {name: value.astype(np.float32) for name, value in loaded.items()}

    def logits(self, ids: Sequence[int]) -> Floats:
        """The scores of every next token, for every position of ``ids``."""
        embeddings = self.weights["model.embed_tokens.weight"]
        x = embeddings[np.asarray(ids)]
        for layer in range(self.config["num_hidden_layers"]):
            x = x + self._attention(layer, self._norm(x, f"model.layers.{layer}.input_layernorm"))
            x = x + self._mlp(layer, self._norm(x, f"model.layers.{layer}.post_attention_layernorm"))
        head = embeddings if self.config["tie_word_embeddings"] else self.weights["lm_head.weight"]
        logits: Floats = self._norm(x, "model.norm") @ head.T
        return logits

    def greedy(self, ids: Sequence[int], count: int, stop_ids: Sequence[int] = ()) -> list[int]:
        """The likeliest continuation, which ends before a stop id or after ``count`` tokens."""
        found: list[int] = []
        while len(found) < count:
            token = int(self.logits([*ids, *found])[-1].argmax())
            if token in stop_ids:
                break
            found.append(token)
        return found

    def _norm(self, x: Floats, name: str) -> Floats:
        scale = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(self.config["rms_norm_eps"]))
        normal: Floats = x / scale * self.weights[f"{name}.weight"]
        return normal

    def _attention(self, layer: int, x: Floats) -> Floats:
        time, hidden = x.shape
        heads, kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        width = hidden // heads
        qkv = x @ self.weights[f"model.layers.{layer}.self_attn.qkv_proj.weight"].T
        split = qkv.reshape(time, heads + 2 * kv_heads, width).swapaxes(0, 1)  # [head, time, width]
        q, k, v = np.split(split, [heads, heads + kv_heads])
        k, v = (np.repeat(part, heads // kv_heads, axis=0) for part in (self._rotate(k), v))
        scores = self._rotate(q) @ k.swapaxes(1, 2) / np.float32(np.sqrt(width))
        scores += np.triu(np.full((time, time), -np.inf, dtype=np.float32), k=1)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (weights / weights.sum(axis=-1, keepdims=True)) @ v
        out: Floats = (
            mixed.swapaxes(0, 1).reshape(time, hidden) @ self.weights[f"model.layers.{layer}.self_attn.o_proj.weight"].T
        )
        return out

    def _rotate(self, x: Floats) -> Floats:
        """Rotary embedding: column ``c`` turns together with column ``c + width / 2``."""
        _, time, width = x.shape
        rates = self.config["rope_theta"] ** (-np.arange(0, width, 2) / width)
        angles = np.arange(time)[:, None] * rates
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        left, right = np.split(x, 2, axis=-1)
        return np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)

    def _mlp(self, layer: int, x: Floats) -> Floats:
        both = x @ self.weights[f"model.layers.{layer}.mlp.gate_up_proj.weight"].T
        gate, up = np.split(both, 2, axis=-1)
        out: Floats = (gate / (1 + np.exp(-gate)) * up) @ self.weights[f"model.layers.{layer}.mlp.down_proj.weight"].T
        return out

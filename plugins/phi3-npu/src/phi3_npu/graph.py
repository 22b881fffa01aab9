"""Transformers' Phi-3 model with the library's linear layers instead of PyTorch's.

PyTorch computes norms and attention in float32, the library computes linear layers in float16. The number of rows in a
forward pass is one of a few fixed sizes: for each new size the library compiles five kernels and keeps their memory
until the process ends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from phi3_core.errors import ModelError
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, DynamicCache, Phi3Config
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

from . import weights
from .library import Library

_MODELS: Any = AutoModelForCausalLM
_WIDEST = 1 << 17
"""Outputs above which the library leaves a linear layer to PyTorch; wider layers are split instead."""
_BLOCK = 256
"""Positions by which the KV cache grows."""


class Cache(DynamicCache):
    """A KV cache in buffers that grow by blocks, so that appending a token does not copy the cache."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self._keys: dict[int, torch.Tensor] = {}
        self._values: dict[int, torch.Tensor] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store a layer's new keys and values after ``length`` positions and return all of the layer up to them.

        Args:
            key_states: ``[1, heads, rows, size]``.
            value_states: ``[1, heads, rows, size]``.
            layer_idx: the index of the layer.
            *_: ignored.
            **__: ignored.

        Returns:
            Keys and values, each ``[1, heads, length + rows, size]``.
        """
        end = self.length + key_states.shape[2]
        return (
            _placed(self._keys, layer_idx, key_states, self.length, end),
            _placed(self._values, layer_idx, value_states, self.length, end),
        )

    def get_seq_length(self, *_: Any, **__: Any) -> int:
        """Return the number of cached positions."""
        return self.length


def _placed(buffers: dict[int, torch.Tensor], layer: int, states: torch.Tensor, start: int, end: int) -> torch.Tensor:
    buffer = buffers.get(layer)
    if buffer is None or buffer.shape[2] < end:
        heads, size = states.shape[1], states.shape[3]
        larger = torch.empty((1, heads, -(-end // _BLOCK) * _BLOCK, size), dtype=states.dtype)
        if buffer is not None:
            larger[:, :, :start] = buffer[:, :, :start]
        buffers[layer] = buffer = larger
    buffer[:, :, start:end] = states
    return buffer[:, :, :end]


class Graph:
    """A model with the weights of an artifact, mapped into memory."""

    def __init__(self, folder: Path, library: Library) -> None:
        config = read_config(folder)
        tensors = read_tensors(folder)
        self.vocabulary = int(config.vocab_size)
        self.window = getattr(config, "sliding_window", None)
        self._table = _take(tensors, "model.embed_tokens.weight")
        tensors.setdefault("lm_head.weight", self._table)  # a tied output layer in float16 is the embedding
        with torch.device("meta"):
            model = _MODELS.from_config(config, attn_implementation="sdpa")
        for name, module in list(model.named_modules()):
            if isinstance(module, torch.nn.Linear):
                parent, _, last = name.rpartition(".")
                setattr(model.get_submodule(parent), last, _linear(tensors, f"{name}.weight", library))
            elif name.endswith("norm"):
                module.weight = torch.nn.Parameter(_take(tensors, f"{name}.weight").float(), requires_grad=False)
        model.model.rotary_emb = Phi3RotaryEmbedding(config=config)
        self._model = model.eval()
        self.cache = Cache()

    def forward(self, ids: list[int], rows: int) -> torch.Tensor:
        """Run the model on ``ids`` after the cached positions and extend the KV cache by them.

        Args:
            ids: token ids, at most ``rows``.
            rows: the number of rows to pad to.

        Returns:
            The states after the final norm, ``[ids, hidden]``.
        """
        start, count = self.cache.length, len(ids)
        real = torch.tensor(ids, dtype=torch.long)
        inputs = torch.zeros((1, rows, self._table.shape[1]))
        inputs[0, :count] = torch.nn.functional.embedding(real, self._table)
        # Padding rows have the last real position: a later one could make LongRoPE switch to its long factors.
        positions = torch.arange(start, start + rows).clamp(max=start + count - 1)
        with torch.inference_mode():
            states: torch.Tensor = self._model.model(
                inputs_embeds=inputs,
                attention_mask=self._mask(start, rows),
                position_ids=positions[None],
                past_key_values=self.cache,
                use_cache=True,
            )[0]
        self.cache.length = start + count
        return states[0, :count]

    def logits(self, states: torch.Tensor, rows: int) -> torch.Tensor:
        """Return the output layer's logits, ``[states, vocabulary]``, in float32.

        Args:
            states: ``[states, hidden]``.
            rows: the number of rows to pad to.
        """
        filled = torch.zeros((1, rows, states.shape[1]))
        filled[0, : len(states)] = states
        with torch.inference_mode():
            found: torch.Tensor = self._model.lm_head(filled)[0, : len(states)]
        return found.float()

    def _mask(self, start: int, rows: int) -> torch.Tensor:
        """Return the attention mask, ``[1, 1, rows, start + rows]``: causal and limited to the sliding window."""
        query = torch.arange(start, start + rows)[:, None]
        key = torch.arange(start + rows)[None]
        hidden = key > query
        if self.window is not None:
            hidden |= key <= query - self.window
        return torch.zeros(hidden.shape).masked_fill(hidden, torch.finfo(torch.float32).min)[None, None]


class _Rows(torch.nn.Module):
    """A linear layer split by outputs."""

    def __init__(self, parts: list[torch.nn.Module]) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList(parts)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat([part(inputs) for part in self.parts], dim=-1)


def _linear(tensors: Mapping[str, torch.Tensor], name: str, library: Library) -> torch.nn.Module:
    weight = _take(tensors, name)
    scale = tensors.get(weights.scale_of(name))
    pieces = -(-weight.shape[0] // _WIDEST)
    step = -(-weight.shape[0] // pieces)
    parts = []
    for start in range(0, weight.shape[0], step):
        rows = slice(start, start + step)
        if scale is None:
            part = library.linear(weight[rows])
            part.weight.requires_grad_(False)
        else:
            part = library.quantized_linear(weight[rows], scale[rows])
        parts.append(part.eval())
    return parts[0] if len(parts) == 1 else _Rows(parts)


def _take(tensors: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    if name not in tensors:
        raise ModelError(f"{weights.FILE} is damaged: it has no tensor {name}")
    return tensors[name]


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of an artifact's weights file, memory-mapped.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        with safe_open(folder / weights.FILE, framework="pt") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / weights.FILE} cannot be read: {error}") from error


def read_config(folder: Path) -> Phi3Config:
    """Return the configuration in ``config.json`` of a folder.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        content = json.loads((folder / "config.json").read_bytes())
        scaling = content.get("rope_scaling")
        if isinstance(scaling, dict) and scaling.get("type") in {"su", "yarn"}:
            content["rope_scaling"] = {**scaling, "type": "longrope"}  # the name in early Phi-3 releases
        # Transformers requires the padding token's row in the embedding, which a shortened model may not have.
        return Phi3Config.from_dict({**content, "pad_token_id": None})
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ModelError(f"{folder / 'config.json'} cannot be read: {error}") from error

"""The Phi-3 architecture, as described by a checkpoint's ``config.json``.

The models differ in few points: Phi-3-mini-4k uses sliding-window attention, the 128k models and Phi-3.5 scale
the rotary embedding (LongRoPE), Phi-3-medium and Phi-4 use grouped-query attention, and Phi-4-mini rotates only
part of each head and ties its embedding to its output layer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from attrs import frozen

from phi3_core.errors import ModelError

from .family import check_original, check_task, check_type
from .rope import Rotary, read_rotary


@frozen(kw_only=True)
class Architecture:
    """Dimensions and constants of a model: what a forward pass needs besides the weights."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int
    context: int
    """Context length in tokens."""
    window: int | None
    """Keys that a query attends to, its own position included; None without a sliding window."""
    epsilon: float
    """Added to the mean square in RMSNorm."""
    tied: bool
    """Whether the output layer shares the embedding's weights."""
    rotary: Rotary

    @property
    def q_width(self) -> int:
        """Width of all query heads together, and of the attention's output."""
        return self.heads * self.head_size

    @property
    def kv_width(self) -> int:
        """Width of all key heads together, and of all value heads together."""
        return self.key_value_heads * self.head_size


def read_config(path: Path) -> dict[str, Any]:
    """Return the object in the ``config.json`` at ``path``. Raises :class:`ModelError` if it is missing or damaged."""
    try:
        config: object = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{path} is missing", hint="give a folder with a Hugging Face checkpoint") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint="repair it, or fetch it again") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a JSON object", hint="repair it, or fetch it again")
    return config


def read_architecture(path: Path) -> Architecture:
    """Return the architecture that the ``config.json`` at ``path`` describes.

    Raises:
        ModelError: the file is missing or damaged, or describes a model outside the Phi-3 family.
    """
    return parse_architecture(path, read_config(path))


def parse_architecture(path: PurePath, config: Mapping[str, Any]) -> Architecture:
    """Return the architecture that the content of a ``config.json`` describes.

    Args:
        path: the file, for messages.
        config: its content.

    Raises:
        ModelError: it describes a model outside the Phi-3 family.
    """
    _check_supported(path, config)
    heads, hidden = _count(path, config, "num_attention_heads"), _count(path, config, "hidden_size")
    groups = _count(path, config, "num_key_value_heads", heads)
    head_size = _count(path, config, "head_dim", hidden // heads)
    if heads % groups or ("head_dim" not in config and hidden % heads):
        raise ModelError(f"{path}: {heads} heads fit neither {groups} key heads nor a hidden size of {hidden}")
    context = _count(path, config, "max_position_embeddings")
    window = config.get("sliding_window")
    if window is not None and _count(path, config, "sliding_window") >= context:
        window = None
    return Architecture(
        layers=_count(path, config, "num_hidden_layers"),
        hidden=hidden,
        intermediate=_count(path, config, "intermediate_size"),
        heads=heads,
        key_value_heads=groups,
        head_size=head_size,
        vocabulary=_count(path, config, "vocab_size"),
        context=context,
        window=window,
        epsilon=_epsilon(path, config),
        tied=bool(config.get("tie_word_embeddings", False)),
        rotary=read_rotary(path, config, head_size=head_size, context=context),
    )


def _check_supported(path: PurePath, config: Mapping[str, Any]) -> None:
    check_type(str(path), config.get("model_type"))
    check_task(str(path), config)
    check_original(str(path), config)
    for key, expected in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
        if config.get(key, expected) != expected:
            # transformers' Phi-3 supports other activations but no biases, so an exporter cannot help with those.
            hint = "try phi3 quantize with --exporter reference" if key == "hidden_act" else None
            raise ModelError(f"{path}: {key} is {config[key]!r}; the Phi-3 family has {expected!r}", hint=hint)


def _count(path: PurePath, config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None and default is not None:
        return default
    if type(value) is not int or not 0 < value < 2**31:
        raise ModelError(f"{path}: {key} must be a positive integer, not {value!r}")
    return value


def _epsilon(path: PurePath, config: Mapping[str, Any]) -> float:
    value = config.get("rms_norm_eps", 1e-5)
    if not isinstance(value, (int, float)) or not (math.isfinite(value) and value >= 0):
        raise ModelError(f"{path}: rms_norm_eps must be a small positive number, not {value!r}")
    return float(value)

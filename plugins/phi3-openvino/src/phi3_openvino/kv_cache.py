"""The size of the KV cache that requests share, chosen from the model and the memory."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from phi3_core.backend import format_bytes, this_machine
from phi3_core.values import Device

logger = logging.getLogger("phi3_core.openvino")
MOST = 16
"""Requests at once. Beyond, a step takes longer by as much as it does more."""
SHARE = 1536
"""Tokens of cache for each request at once: a question of 512 tokens, and an answer of phi3-core's default length."""
_MOST_TOKENS = MOST * 2048
"""The largest cache, if a context is not larger: questions of 1,024 tokens, and such answers."""
_LEAST_CONTEXT = 1024
"""Tokens of a context that is limited by the memory, however little there is."""
_USABLE = 0.9
"""Share of the memory for weights and cache; the rest is for the system and the runtime."""
_CACHE = 0.25
"""Share of the memory for the cache, unless a single context needs more."""
_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "u8": 1.0, "i8": 1.0, "u4": 0.5, "i4": 0.5}


@frozen(kw_only=True)
class Plan:
    """How much the cache holds."""

    block: int
    """Tokens in a block, the unit in which the cache is given out."""
    blocks: int
    """Blocks of the cache."""
    context: int
    """Tokens of prompt and answer together that one request can have."""
    concurrency: int
    """Requests that are processed at once."""


def plan(xml: Path, device: Device, properties: Mapping[str, Any], context: int) -> Plan | None:
    """Return how large the cache should be; None if the graph does not say how large a token's part is.

    The cache holds one context, or what a quarter of the memory holds, up to 32,768 tokens. There are as many requests
    at once as it has ``SHARE`` tokens for, at most ``MOST``; larger ones wait until those before them leave room.

    Args:
        xml: the ``.xml`` file of the graph.
        device: the device that it will be loaded on.
        properties: the options of the pipeline, of which ``KV_CACHE_PRECISION`` counts.
        context: the model's context length in tokens.
    """
    token = token_bytes(xml, device, properties)
    if not token:
        return None
    machine = this_machine().memory_bytes
    own = device.memory_bytes or machine
    memory = own if device.kind == "dgpu" else min(own, machine)
    weights = xml.with_suffix(".bin")
    room = int(memory * _USABLE - (weights.stat().st_size if weights.is_file() else 0)) // token
    if room < context:
        limited = max(_LEAST_CONTEXT, room)
        if limited < context:
            words = "the context is limited to %d tokens: %s of memory hold no more of this model's KV cache"
            logger.warning(words, limited, format_bytes(memory))
            context = limited
    shared = min(_MOST_TOKENS, int(memory * _CACHE) // token)
    concurrency = max(1, min(MOST, shared // SHARE))
    tokens = max(context, shared)
    block = 32 if device.kind == "cpu" else 16  # as in OpenVINO GenAI
    # Each request may use a part of one more block, and one block is spare.
    return Plan(block=block, blocks=-(-tokens // block) + concurrency + 1, context=context, concurrency=concurrency)


def token_bytes(xml: Path, device: Device, properties: Mapping[str, Any]) -> int:
    """Return the bytes of keys and values of one token in all layers; 0 if the graph does not show them."""
    shapes = re.findall(r'variable_shape="[^",]*,(\d+),[^",]*,(\d+)"', xml.read_text(encoding="utf-8"))
    default = "u8" if device.kind == "cpu" else "f16"
    number = _BYTES.get(str(properties.get("KV_CACHE_PRECISION", default)).lower(), 2.0)
    # Integers have a scale and a zero point in float32 for each 32 tokens of a channel, or for each token of a head.
    total = sum(
        int(heads) * (int(size) * number + (max(8.0, int(size) / 4) if number <= 1 else 0)) for heads, size in shapes
    )
    return int(total)

"""Whether a checkpoint's weights are quantized, by its ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def quantization_method(config: Mapping[str, Any]) -> str | None:
    """Return what a ``config.json`` says its weights are quantized with, or None if they are not."""
    said = config.get("quantization_config") or config.get("compression_config")
    if said:
        return str(said.get("quant_method") or "unnamed") if isinstance(said, dict) else "unnamed"
    return "MLX" if config.get("quantization") else None

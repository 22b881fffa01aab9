"""Whether a checkpoint's weights are quantized, by its ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_METHODS = {
    "awq": "AWQ",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "fbgemm_fp8": "FP8",
    "fp8": "FP8",
    "gptq": "GPTQ",
    "hqq": "HQQ",
}


def quantization_method(config: Mapping[str, Any]) -> str | None:
    """Return what a ``config.json`` says its weights are quantized with, or None if they are not."""
    stated = config.get("quantization_config") or config.get("compression_config")
    if stated:
        method = stated.get("quant_method") if isinstance(stated, Mapping) else None
        if method is None and isinstance(stated, Mapping) and {"load_in_4bit", "load_in_8bit"} & stated.keys():
            method = "bitsandbytes"
        return "an unknown method" if method is None else _METHODS.get(str(method), str(method))
    own = config.get("quantization")  # of mlx-lm
    return "MLX" if isinstance(own, Mapping) and "bits" in own else None

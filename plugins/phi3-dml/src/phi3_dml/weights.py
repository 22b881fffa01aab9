"""The artifact format that ONNX Runtime GenAI loads: a folder with ``genai_config.json`` and an ONNX graph."""

from __future__ import annotations

from pathlib import Path

from phi3_core.values import Device, Published

from . import configuration
from .onnx import writer
from .onnx.reader import Content

_WIDE = (writer.FLOAT, writer.FLOAT16, 11, 16)
"""``TensorProto.DataType`` of float32, float16, float64 and bfloat16."""
_LOW_BITS = 4
_LOW_SHARE = 1 / 16
"""Share of 4-bit weights that a recipe's ratio leaves at least; a single layer is less."""
_MINI_4K = "microsoft/Phi-3-mini-4k-instruct-onnx"
_MINI_128K = "microsoft/Phi-3-mini-128k-instruct-onnx"
_ON_CPU = {
    "phi-3-mini-4k-instruct": (_MINI_4K, "cpu_and_mobile/cpu-int4-rtn-block-32-acc-level-4"),
    "phi-3-mini-128k-instruct": (_MINI_128K, "cpu_and_mobile/cpu-int4-rtn-block-32-acc-level-4"),
    "phi-3.5-mini-instruct": (
        "microsoft/Phi-3.5-mini-instruct-onnx",
        "cpu_and_mobile/cpu-int4-awq-block-128-acc-level-4",
    ),
}
_ON_DIRECTML = {
    "phi-3-mini-4k-instruct": (_MINI_4K, "directml/directml-int4-awq-block-128"),
    "phi-3-mini-128k-instruct": (_MINI_128K, "directml/directml-int4-awq-block-128"),
    "phi-3-medium-4k-instruct": ("microsoft/Phi-3-medium-4k-instruct-onnx-directml", "directml-int4-awq-block-128"),
    "phi-3-medium-128k-instruct": (
        "microsoft/Phi-3-medium-128k-instruct-onnx-directml",
        "directml-int4-awq-block-128",
    ),
}
"""Repositories and folders of int4 weights. If a folder no longer exists, core reports it and quantizes the model."""


def recognize(path: Path) -> str | None:
    """Return the precision of the weights at ``path``, or None if there is no ``genai_config.json``.

    Raises:
        ModelError: the folder is damaged, or contains settings that are not allowed.
    """
    if not (path / configuration.NAME).is_file():
        return None
    _, found = configuration.check_files(path, configuration.read(path))
    return precision_of(found)


def precision_of(found: Content) -> str:
    """Return the precision of a graph: that of most weights, or int4 if they are quantized and some have 4 bits.

    Recipes mix 4 and 8 bits, in any ratio.
    """
    quantized = sum(found.bits.values())
    if quantized <= sum(found.kinds.get(kind, 0) for kind in _WIDE):
        return "fp16"
    low = sum(count for bits, count in found.bits.items() if bits <= _LOW_BITS)
    return "int4" if low >= quantized * _LOW_SHARE else "int8"


def published(model: str, device: Device, precision: str) -> Published | None:
    """Return the repository and folder with published weights, or None."""
    if precision != "int4":
        return None
    known = (_ON_CPU if device.kind == "cpu" else _ON_DIRECTML).get(model)
    return None if known is None else Published(repository=known[0], folder=known[1])

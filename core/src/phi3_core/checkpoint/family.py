"""Which models ``config.json`` may describe: decoders of the Phi-3 family with weights that are not quantized."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phi3_core.errors import ModelError

from .quantized import quantization_method

FAMILY = "phi3"
_HINT = "phi3 models list"
# Models of similar names with another architecture, by ``model_type``.
_RELATIVES = {
    "phi": "Phi-1, Phi-1.5 or Phi-2, which have another architecture",
    "phi-msft": "Phi-1.5 or Phi-2, which have another architecture",
    "mixformer-sequential": "Phi-1 or Phi-1.5, which have another architecture",
    "phi3small": "Phi-3-small, whose attention is block-sparse",
    "phi3_v": "Phi-3-vision, which reads images too",
    "phimoe": "a mixture of experts, such as Phi-3.5-MoE",
    "phi4mm": "Phi-4-multimodal, which reads images and sound too",
    "phi4_multimodal": "Phi-4-multimodal, which reads images and sound too",
    "phi4flash": "Phi-4-mini-flash, which has another architecture",
}


def check_type(where: str, kind: Any) -> None:
    """Check a ``model_type``.

    Args:
        where: the file, folder or repository, for the message.
        kind: the value.

    Raises:
        ModelError: it is another family's, which the message names.
    """
    if kind == FAMILY:
        return
    if isinstance(kind, str) and kind in _RELATIVES:
        raise ModelError(f"{where} is {_RELATIVES[kind]} (type {kind!r}): not supported", hint=_HINT)
    raise ModelError(f"{where} is a model of type {kind!r}, not of the Phi-3 family", hint=_HINT)


def check_task(where: str, config: Mapping[str, Any]) -> None:
    """Check that a model writes text.

    Raises:
        ModelError: ``architectures`` names a model that classifies.
    """
    named = config.get("architectures")
    for name in named if isinstance(named, list) else ():
        if isinstance(name, str) and name.endswith(("Classification", "QuestionAnswering")):
            raise ModelError(f"{where} is a {name}, which classifies text and writes none", hint=_HINT)


def check_original(where: str, config: Mapping[str, Any]) -> None:
    """Check that the weights are original ones.

    Raises:
        ModelError: ``config.json`` says that they are quantized.
    """
    method = quantization_method(config)
    if method is not None:
        raise ModelError(
            f"{where}: the weights are quantized already, with {method}; only original weights are read",
            hint="phi3 models list shows models whose original weights are on the hub",
        )

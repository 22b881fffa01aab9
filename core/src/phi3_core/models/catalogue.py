"""The models known by name. Imported at start-up, so it must stay cheap."""

from __future__ import annotations

from typing import NamedTuple


class Known(NamedTuple):
    """A model of the catalogue."""

    name: str
    title: str
    parameters: int
    context_length: int
    """Maximum number of tokens of prompt and answer together."""
    kv_bytes: int
    """Bytes of KV cache per token in 16 bits: 2 (key and value) x layers x KV heads x head size x 2 bytes."""
    stop_ids: tuple[int, ...]
    licence: str
    repository: str | None
    """The hub repository of the original weights; None if they are not on the hub."""


_PHI3_STOPS = (32000, 32001, 32007)  # <|endoftext|>, <|assistant|>, <|end|>
_MINI = (3_821_079_552, 2 * 32 * 32 * 96 * 2)
_MEDIUM = (13_960_238_080, 2 * 40 * 10 * 128 * 2)


def _phi3(name: str, title: str, size: tuple[int, int], context_length: int, repository: str) -> Known:
    parameters, kv_bytes = size
    return Known(name, title, parameters, context_length, kv_bytes, _PHI3_STOPS, "MIT", f"microsoft/{repository}")


_MODELS = (
    _phi3("phi-3-mini-4k-instruct", "Phi-3-mini, 4k context", _MINI, 4096, "Phi-3-mini-4k-instruct"),
    _phi3("phi-3-mini-128k-instruct", "Phi-3-mini, 128k context", _MINI, 131072, "Phi-3-mini-128k-instruct"),
    _phi3("phi-3.5-mini-instruct", "Phi-3.5-mini", _MINI, 131072, "Phi-3.5-mini-instruct"),
    _phi3("phi-3-medium-4k-instruct", "Phi-3-medium, 4k context", _MEDIUM, 4096, "Phi-3-medium-4k-instruct"),
    _phi3("phi-3-medium-128k-instruct", "Phi-3-medium, 128k context", _MEDIUM, 131072, "Phi-3-medium-128k-instruct"),
    Known(
        name="phi-4",
        title="Phi-4",
        parameters=14_659_507_200,
        context_length=16384,
        kv_bytes=2 * 40 * 10 * 128 * 2,
        stop_ids=(100257, 100265),  # <|endoftext|>, <|im_end|>
        licence="MIT",
        repository="microsoft/phi-4",
    ),
    Known(
        name="phi-4-mini-instruct",
        title="Phi-4-mini",
        parameters=3_836_021_760,
        context_length=131072,
        kv_bytes=2 * 32 * 8 * 128 * 2,
        stop_ids=(199999, 200020),  # <|endoftext|>, <|end|>
        licence="MIT",
        repository="microsoft/Phi-4-mini-instruct",
    ),
    Known(
        name="sample",
        title="SmolLM2-135M-Instruct in the Phi-3 layout: small and real, for trying the runtime and for its tests",
        parameters=134_515_008,
        context_length=8192,
        kv_bytes=2 * 30 * 3 * 64 * 2,
        stop_ids=(0, 2),  # <|endoftext|>, <|im_end|>
        licence="Apache-2.0",
        repository=None,
    ),
)

CATALOGUE = {model.name: model for model in _MODELS}

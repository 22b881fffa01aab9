"""The models known by name. Imported by the command line: keep it cheap."""

from __future__ import annotations

from typing import NamedTuple

DEFAULT = "phi-3-mini-4k-instruct"


class Known(NamedTuple):
    """A model of the catalogue."""

    name: str
    title: str
    parameters: int
    context_length: int
    """Tokens."""
    licence: str
    repository: str | None
    """The hub repository of the original weights; None if they do not come from the hub."""


_MODELS = (
    Known(
        name="phi-3-mini-4k-instruct",
        title="Phi-3-mini, 4k context",
        parameters=3_821_079_552,
        context_length=4096,
        licence="MIT",
        repository="microsoft/Phi-3-mini-4k-instruct",
    ),
    Known(
        name="phi-3-mini-128k-instruct",
        title="Phi-3-mini, 128k context",
        parameters=3_821_079_552,
        context_length=131072,
        licence="MIT",
        repository="microsoft/Phi-3-mini-128k-instruct",
    ),
    Known(
        name="phi-3.5-mini-instruct",
        title="Phi-3.5-mini",
        parameters=3_821_079_552,
        context_length=131072,
        licence="MIT",
        repository="microsoft/Phi-3.5-mini-instruct",
    ),
    Known(
        name="phi-3-medium-4k-instruct",
        title="Phi-3-medium, 4k context",
        parameters=13_960_238_080,
        context_length=4096,
        licence="MIT",
        repository="microsoft/Phi-3-medium-4k-instruct",
    ),
    Known(
        name="phi-3-medium-128k-instruct",
        title="Phi-3-medium, 128k context",
        parameters=13_960_238_080,
        context_length=131072,
        licence="MIT",
        repository="microsoft/Phi-3-medium-128k-instruct",
    ),
    Known(
        name="phi-4",
        title="Phi-4",
        parameters=14_659_507_200,
        context_length=16384,
        licence="MIT",
        repository="microsoft/phi-4",
    ),
    Known(
        name="phi-4-mini-instruct",
        title="Phi-4-mini",
        parameters=3_836_021_760,
        context_length=131072,
        licence="MIT",
        repository="microsoft/Phi-4-mini-instruct",
    ),
    Known(
        name="sample",
        title="SmolLM2-135M-Instruct in the Phi-3 layout: small and real, for trying the runtime and for its tests",
        parameters=134_515_008,
        context_length=8192,
        licence="Apache-2.0",
        repository=None,
    ),
)

CATALOGUE = {model.name: model for model in _MODELS}

"""The entry point: implementations of the hooks in :mod:`phi3_core.hookspecs`. Each imports its module when called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from phi3_core.hookspecs import hookimpl
from phi3_core.values import (
    Artifact,
    Device,
    Finding,
    GenerationRequest,
    Machine,
    Offer,
    Progress,
    Published,
    Recipe,
    Refusal,
    Source,
)

if TYPE_CHECKING:
    import numpy as np

    from .engine import OpenVinoEngine


CONTRACT = 1
"""The version of phi3-core's contract that this plugin implements."""


@hookimpl
def detect(machine: Machine) -> Sequence[Offer | Refusal]:
    from . import detection

    return detection.detect(machine)


@hookimpl
def recognize(path: Path) -> str | None:
    from . import weights

    return weights.recognize(path)


@hookimpl
def published(model: str, device: Device, precision: str) -> Published | None:
    from . import weights

    return weights.published(model, device, precision)


@hookimpl
def quantize(source: Source, device: Device, recipe: Recipe, output: Path, progress: Progress) -> Mapping[str, str]:
    from . import quantization

    return quantization.quantize(source, device, recipe, output, progress)


@hookimpl
def logits(engine: OpenVinoEngine, ids: Sequence[int]) -> np.ndarray:
    return engine.logits(ids)


@hookimpl
def load(
    artifact: Artifact, device: Device, options: Mapping[str, str], purpose: str, prompt_tokens: int | None
) -> OpenVinoEngine:
    from . import engine

    return engine.load(artifact, device, options, purpose, prompt_tokens)


@hookimpl
def generate(engine: OpenVinoEngine, request: GenerationRequest) -> Iterator[int]:
    return engine.generate(request)


@hookimpl
def diagnose(machine: Machine) -> Sequence[Finding]:
    from . import diagnosis

    return diagnosis.diagnose(machine)

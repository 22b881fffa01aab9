"""The entry point: implementations of the hooks in :mod:`phi3_core.hookspecs`. Each imports its module when called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from phi3_core.hookspecs import hookimpl
from phi3_core.values import Artifact, Device, GenerationRequest, Machine, Offer, Progress, Recipe, Refusal, Source

if TYPE_CHECKING:
    import numpy as np

    from .engine import TorchEngine

CONTRACT = 1
"""The version of phi3-core's contract that this plugin implements."""


@hookimpl
def detect(machine: Machine) -> Sequence[Offer | Refusal]:
    from . import detection

    return detection.detect(machine)


@hookimpl
def quantize(source: Source, device: Device, recipe: Recipe, output: Path, progress: Progress) -> Mapping[str, str]:
    from phi3_core.backend import Checkpoint, check_extra, save_weights

    check_extra(device.backend, recipe, known=())
    save_weights(Checkpoint.open(source.path), output, progress)
    return {}


@hookimpl
def load(
    artifact: Artifact, device: Device, options: Mapping[str, str], purpose: str, progress: Progress
) -> TorchEngine:
    from . import engine

    return engine.load(artifact, device, options, purpose, progress)


@hookimpl
def generate(engine: TorchEngine, request: GenerationRequest) -> Iterator[int]:
    return engine.generate(request)


@hookimpl
def logits(engine: TorchEngine, ids: Sequence[int]) -> np.ndarray:
    return engine.logits(ids)

"""The contract: what a backend implements, on one screen.

A backend is a distribution with an entry point in the group ``phi3``; the entry point's name is the
backend's name, its target a module or object with functions marked ``@phi3_core.hookimpl``. An
implementation takes the arguments it needs. Arguments may be added here later, never renamed.
Plugins run in worker processes only: nothing here is ever called in the user's own process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from .values import (
    Artifact,
    Device,
    Engine,
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

PROJECT = "phi3_core"
REQUIRED = ("detect", "load", "generate")
CONTRACT = 1
"""The number of this contract. A plugin may state, as ``CONTRACT`` of its module, the one it was written for."""
OLDEST_CONTRACT = 1
"""The oldest contract that plugins may have been written for."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def detect(machine: Machine) -> Sequence[Offer | Refusal]:
    """Say which devices can be driven here, and why others cannot. Fast, and without loading a model."""
    raise NotImplementedError


@hookspec(firstresult=True)
def quantize(
    source: Source, device: Device, recipe: Recipe, output: Path, progress: Progress
) -> Mapping[str, str] | None:
    """Turn original weights into the form that :func:`load` takes, in the empty folder ``output``.

    May return the versions of the tools that were used, by their names: they become part of ``phi3.json``.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def load(artifact: Artifact, device: Device, options: Mapping[str, str], purpose: str) -> Engine:
    """Load an artifact on a device.

    ``options`` are the user's ``--option KEY=VALUE``. ``purpose`` is ``answer`` (one prompt: start fast),
    ``conversation`` (many prompts that share a prefix: reuse it) or ``evaluation`` (:func:`logits` only).
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def generate(engine: Engine, request: GenerationRequest) -> Iterator[int]:
    """Yield each token id as soon as it exists; end before a stop id or after ``max_new_tokens``.

    The iterator is pulled; closing it stops the work. Keeping the KV cache of earlier requests and reusing the
    longest common prefix is allowed, as long as it does not change what comes out.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def recognize(path: Path) -> str | None:
    """Optional. The precision of weights that :func:`load` can take from this file or folder, or None if it cannot."""
    raise NotImplementedError


@hookspec(firstresult=True)
def published(model: str, device: Device, precision: str) -> Published | None:
    """Optional. Where weights of a catalogue model lie that are ready for :func:`load`, or None."""
    raise NotImplementedError


@hookspec(firstresult=True)
def logits(engine: Engine, ids: Sequence[int]) -> np.ndarray:
    """Optional. The logits after every position: ``[len(ids), vocabulary]``, float32."""
    raise NotImplementedError


@hookspec
def diagnose(machine: Machine) -> Sequence[Finding]:
    """Optional. What a person should know when this backend does not do what they expect."""
    raise NotImplementedError

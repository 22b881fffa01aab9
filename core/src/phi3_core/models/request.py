"""What is asked for, of the pipeline and of a backend, and what obtaining a model returns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from attrs import field, frozen, validators

from phi3_core.plugin import Backend
from phi3_core.selection import Candidate, DeviceRequest
from phi3_core.store.store import ArtifactKey
from phi3_core.values import Artifact, Device, Progress, Recipe, no_progress

from .fit import fitting_precisions
from .ref import ModelRef

PURPOSES = ("answer", "conversation")
"""What an engine is loaded for: one prompt, or many that share a prefix."""


@frozen(kw_only=True)
class ModelRequest:
    """A model, and how the user wants it."""

    model: str
    """What the user wrote: a name, a hub repository, a folder or a GGUF file."""
    device: DeviceRequest = field(factory=DeviceRequest)
    options: Mapping[str, str] = field(factory=dict)
    """Handed to the engine, in its runtime's own words."""
    purpose: str = field(default="conversation", validator=validators.in_(PURPOSES))
    progress: Progress = no_progress
    refresh: bool = False
    """Whether the backends are asked again, whatever was cached."""
    offline: bool = False
    """Whether only what is on this machine may be taken."""
    update: bool = False
    """Whether a newer revision is looked for."""
    recipe: Recipe | None = None
    """How to quantize, if the user said so: what is in the store or published is not taken instead."""
    check_quality: bool = True
    """Whether the quality of what is quantized is measured, and noise refused."""


@frozen(kw_only=True)
class ArtifactRequest:
    """A model in a form that one device loads."""

    ref: ModelRef
    device: Device
    precisions: tuple[str, ...]
    """The first that is available is taken."""
    layout: str = ""
    progress: Progress = no_progress
    offline: bool = False
    update: bool = False
    recipe: Recipe | None = None
    check_quality: bool = True

    @classmethod
    def of(cls, request: ModelRequest, ref: ModelRef, candidate: Candidate) -> ArtifactRequest:
        """Return what has to be obtained for one candidate of a request.

        Raises:
            TooLargeError: the model does not fit the device's memory.
        """
        return cls(
            ref=ref,
            device=candidate.device,
            precisions=fitting_precisions(ref, candidate.device, candidate.precisions),
            layout=candidate.layout,
            progress=request.progress,
            offline=request.offline,
            update=request.update,
            recipe=request.recipe,
            check_quality=request.check_quality,
        )

    def key(self, precision: str) -> ArtifactKey:
        """Return the store's key of the model's artifact for this device at ``precision``."""
        return ArtifactKey(backend=self.device.backend, precision=precision, layout=self.layout)


@frozen(kw_only=True)
class ResolvedModel:
    """Weights for a backend, and where core finds what it needs for the text."""

    artifact: Artifact
    tokenizer_dir: Path
    """The folder with the tokenizer and the chat template."""
    origin: str
    """Where the weights came from, in words."""


@frozen(kw_only=True)
class FetchedModel:
    """A resolved model, and the device it was resolved for."""

    ref: ModelRef
    device: Device
    backend: Backend
    resolved: ResolvedModel


class BackendCalls(Protocol):
    """The worker of the device's backend, as far as obtaining a model needs it."""

    backend: Backend

    @property
    def hooks(self) -> tuple[str, ...]:
        """Names of the hooks that the backend implements."""
        ...

    def call(self, verb: str, *, limit_s: float, progress: Progress | None = None, **arguments: object) -> Any:
        """Call a hook and wait for its result, or its error."""
        ...

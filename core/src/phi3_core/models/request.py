"""Requests for models and artifacts, and the results of obtaining them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from attrs import field, frozen, validators

from phi3_core.plugin import Backend
from phi3_core.selection import Candidate, DeviceRequest
from phi3_core.store.entry import ArtifactKey
from phi3_core.values import Artifact, Device, Progress, Recipe, no_progress

from .fit import fitting_precisions
from .ref import ModelRef

PURPOSES = ("answer", "conversation")
"""What an engine is loaded for: one prompt, or several that share a prefix."""


@frozen(kw_only=True)
class ModelRequest:
    """The user's request for a model."""

    model: str
    """The value of ``--model``: a name, hub repository, folder or GGUF file."""
    device: DeviceRequest = field(factory=DeviceRequest)
    options: Mapping[str, str] = field(factory=dict)
    """Runtime options, passed to the engine unchanged."""
    backend_options: Mapping[str, Mapping[str, str]] = field(factory=dict)
    """Runtime options by backend, for what ``options`` does not have."""
    purpose: str = field(default="conversation", validator=validators.in_(PURPOSES))
    prompt_tokens: int | None = None
    """The approximate length of the prompt in tokens, if it is known already."""
    progress: Progress = no_progress
    refresh: bool = False
    """Whether to ask the backends again instead of using their cached answers."""
    offline: bool = False
    """Whether to use only files that are on this machine."""
    max_waiting: int | None = field(
        default=None, validator=validators.optional(validators.and_(validators.instance_of(int), validators.ge(0)))
    )
    """How many answers may wait for the engine; None for any number."""
    update: bool = False
    """Whether to look for a newer revision."""
    recipe: Recipe | None = None
    """How to quantize; with a recipe, stored artifacts of other recipes and published weights are not used."""
    check_quality: bool = True
    """Whether to measure the quality after quantizing, and to reject noise."""
    hook: str | None = None
    """An optional hook that the backend is to implement."""
    check_answers: bool = True
    """Whether an engine is checked with known answers the first time."""
    check_anew: bool = False
    """Whether it is checked although it has passed before."""

    def options_of(self, backend: str) -> dict[str, str]:
        """Return the runtime options for an engine of a backend, whose name may be in any case."""
        own = (each for name, each in self.backend_options.items() if name.casefold() == backend.casefold())
        return {**next(own, {}), **self.options}


@frozen(kw_only=True)
class ArtifactRequest:
    """A request for an artifact of a model that one device can load."""

    ref: ModelRef
    device: Device
    precisions: tuple[str, ...]
    """Allowed precisions; the first available one is used."""
    layout: str = ""
    progress: Progress = no_progress
    offline: bool = False
    update: bool = False
    recipe: Recipe | None = None
    check_quality: bool = True
    hook: str | None = None
    chat: bool = False
    """Whether the artifact is loaded to answer, for which the model needs a chat template."""

    @classmethod
    def of(cls, request: ModelRequest, ref: ModelRef, candidate: Candidate, *, chat: bool = False) -> ArtifactRequest:
        """Return the request for the artifact of one candidate.

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
            hook=request.hook,
            chat=chat,
        )

    def key(self, precision: str) -> ArtifactKey:
        """Return the key of the artifact at ``precision`` in the store."""
        return ArtifactKey(backend=self.device.backend, precision=precision, layout=self.layout)


@frozen(kw_only=True)
class ResolvedModel:
    """An artifact, and the folder of its tokenizer."""

    artifact: Artifact
    tokenizer_dir: Path
    """The folder with the tokenizer and the chat template."""
    origin: str
    """Where the weights came from, for display."""


@frozen(kw_only=True)
class FetchedModel:
    """A resolved model, with the device it was obtained for."""

    ref: ModelRef
    device: Device
    backend: Backend
    resolved: ResolvedModel


class BackendCalls(Protocol):
    """The part of :class:`~phi3_core.worker.host.Worker` that is used to obtain a model."""

    backend: Backend

    @property
    def hooks(self) -> tuple[str, ...]:
        """Names of the hooks that the backend implements."""
        ...

    def call(self, verb: str, *, limit_s: float, progress: Progress | None = None, **arguments: object) -> Any:
        """Call a hook and wait for its result; raise its error."""
        ...

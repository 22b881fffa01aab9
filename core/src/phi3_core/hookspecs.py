"""The plugin contract: the hooks that a backend implements.

A backend is a distribution with an entry point in the group ``phi3``. The entry point's name is the backend's name;
its target is a module or object with functions marked ``@phi3_core.hookimpl``. ``detect``, ``load`` and ``generate``
are required, the other hooks are optional. An implementation declares only the arguments it needs: hooks may get
further arguments, and arguments are never renamed. Hooks run in worker processes only, never in the user's process.
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
"""The name of the pluggy project."""
REQUIRED = ("detect", "load", "generate")
"""The hooks that every backend implements."""
CONTRACT = 1
"""The version of this contract. A plugin's module may state the version it was written for as its ``CONTRACT``."""
OLDEST_CONTRACT = 1
"""The oldest contract version that is still supported."""

hookspec = pluggy.HookspecMarker(PROJECT)
"""Marks the specification of a hook; used in this module only."""
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a backend's implementation of a hook."""


@hookspec
def detect(machine: Machine) -> Sequence[Offer | Refusal]:
    """Return the devices that this backend can use, and the reasons why others are unavailable.

    Must be fast (the time limit is 20 s by default) and must not load a model. Missing hardware is a :class:`Refusal`,
    not an exception.

    Args:
        machine: operating system, architecture and memory of this machine.

    Returns:
        An :class:`Offer` for each usable device, and a :class:`Refusal` for each reason why devices are unavailable.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def quantize(
    source: Source, device: Device, recipe: Recipe, output: Path, progress: Progress
) -> Mapping[str, str] | None:
    """Quantize original weights into an artifact that :func:`load` accepts. Optional.

    Afterwards core adds the configuration, tokenizer and chat template of the source unless they exist, measures the
    quality, and writes ``phi3.json``.

    Args:
        source: the original weights.
        device: the device that the artifact is for.
        recipe: precision, group size and other settings.
        output: an empty folder to write the artifact to.
        progress: to be called with the current stage, at least every 15 minutes; a silent backend counts as hung.

    Returns:
        The versions of the tools that were used, by name, for ``phi3.json``; None to record none.

    Raises:
        UsageError: the backend does not support the recipe.
        ModelError: the weights are damaged or not supported.
        DiskFullError: the disk has too little space.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def load(  # noqa: PLR0917 - called by name
    artifact: Artifact,
    device: Device,
    options: Mapping[str, str],
    purpose: str,
    prompt_tokens: int | None,
    progress: Progress,
) -> Engine:
    """Load an artifact on a device.

    Args:
        artifact: the weights, with configuration and tokenizer files beside them.
        device: one of the devices that :func:`detect` offered.
        options: the user's options for the runtime (``--option KEY=VALUE``).
        purpose: ``answer`` (one prompt: start fast), ``conversation`` (prompts that share a prefix: reuse its KV
            cache) or ``evaluation`` (only :func:`logits` is called).
        prompt_tokens: the approximate length of the prompt in tokens, estimated from its text; None if it is unknown.
        progress: may be called with the current stage, until the engine is returned. The time limit, 15 minutes by
            default, restarts with each call.

    Returns:
        The engine, which core passes to :func:`generate` and :func:`logits` in the same process.

    Raises:
        UsageError: an option is unknown or has an invalid value.
        ModelError: the artifact is damaged.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def generate(engine: Engine, request: GenerationRequest) -> Iterator[int]:
    """Generate the token ids of one answer.

    The iterator yields each id as soon as it is computed. It ends before a stop id or after ``max_new_tokens`` ids, and
    stops computing when it is closed. A temperature of 0 is greedy and repeatable. The engine may keep the KV cache of
    earlier requests and reuse the longest common prefix, as long as the ids stay the same.

    If the engine's ``max_concurrency`` is over 1, this is called for so many requests at once, each in a thread of its
    own that also pulls and closes the iterator. Otherwise everything happens in the thread that called :func:`load`.

    Args:
        engine: the engine that :func:`load` returned.
        request: prompt ids, sampling settings and stop conditions.

    Returns:
        An iterator of token ids, usually a generator.

    Raises:
        UsageError: the engine does not support a setting of the request.
        PromptTooLongError: the prompt does not fit the context.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def recognize(path: Path) -> str | None:
    """Return the precision of a user's weights, if :func:`load` accepts them. Optional.

    Args:
        path: a file or folder.

    Returns:
        ``fp16``, ``int8`` or ``int4``; None if the backend cannot load the path.

    Raises:
        ModelError: the weights are in a format of this backend, but damaged.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def published(model: str, device: Device, precision: str) -> Published | None:
    """Return the location of published weights that :func:`load` accepts without quantizing. Optional.

    Args:
        model: a name of the catalogue, such as ``phi-3-mini-4k-instruct``.
        device: the device that the weights are for.
        precision: ``fp16``, ``int8`` or ``int4``.

    Returns:
        The location, or None if the backend knows of no such weights.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def logits(engine: Engine, ids: Sequence[int]) -> np.ndarray:
    """Compute the logits after every position, to measure the quality of an artifact. Optional.

    Args:
        engine: the engine that :func:`load` returned.
        ids: the token ids of a text.

    Returns:
        A float32 array of shape ``[len(ids), vocabulary]``.
    """
    raise NotImplementedError


@hookspec
def diagnose(machine: Machine) -> Sequence[Finding]:
    """Return findings that help when the backend does not work as expected, for ``phi3 doctor``. Optional.

    The time limit is 30 s by default.

    Args:
        machine: operating system, architecture and memory of this machine.

    Returns:
        The findings, in any order.
    """
    raise NotImplementedError

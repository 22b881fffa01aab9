"""The values that core and plugins exchange.

All are frozen, keyword-only and validated on creation. Nested values may be given as mappings, so that
``Offer(**json.loads(text))`` is the inverse of :func:`to_plain`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import attrs
from attrs import field, frozen

from .fields import (
    COUNT,
    OPTIONAL_COUNT,
    OPTIONAL_STRING,
    OPTIONAL_TRUTH,
    STRING,
    TEXT,
    TRUTH,
    mapping,
    must_be,
    one_of,
    some_of,
    strings,
    values_of,
)
from .generation_request import LOOKUPS, MOST_LOGPROBS, GenerationRequest, Sampling, ScoredToken

__all__ = [
    "KINDS",
    "LOOKUPS",
    "MATURITIES",
    "MOST_LOGPROBS",
    "PRECISIONS",
    "SEVERITIES",
    "Artifact",
    "Device",
    "Engine",
    "Finding",
    "GenerationRequest",
    "Machine",
    "Offer",
    "Progress",
    "Published",
    "Recipe",
    "Refusal",
    "Sampling",
    "ScoredToken",
    "Source",
    "no_progress",
    "to_plain",
    "values_of",
]

KINDS = ("cpu", "gpu", "dgpu", "npu")
"""Kinds of device: ``gpu`` is an integrated GPU, ``dgpu`` a discrete one with its own memory."""
PRECISIONS = ("fp16", "int8", "int4")
"""Precisions of weights."""
MATURITIES = ("stable", "experimental", "legacy")
"""Maturities of an offer, best first."""
SEVERITIES = ("info", "warning", "error")
"""Severities of a finding."""


@frozen(kw_only=True)
class Machine:
    """The machine that phi3 runs on."""

    os: str = field(validator=TEXT)
    """``linux``, ``windows`` or ``macos``."""
    architecture: str = field(validator=TEXT)
    """``x86_64`` or ``arm64``; anything else as the system names it."""
    memory_bytes: int = field(validator=COUNT)
    """Total main memory in bytes, or what a control group of Linux allows of it."""
    on_battery: bool = field(default=False, validator=TRUTH)
    """Whether the machine runs on battery power."""


@frozen(kw_only=True)
class Device:
    """A device of a backend, written ``backend:id``."""

    backend: str = field(validator=TEXT)
    """The name of the backend."""
    id: str = field(validator=TEXT)
    """The backend's identifier of the device, e.g. ``GPU.0``."""
    kind: str = field(validator=one_of(*KINDS))
    """One of :data:`KINDS`."""
    name: str = field(validator=TEXT)
    """The name to display, e.g. ``Intel(R) Arc(TM) B390 GPU``."""
    memory_bytes: int | None = field(default=None, validator=OPTIONAL_COUNT)
    """Memory that the device can use, in bytes; None if unknown."""
    driver: str | None = field(default=None, validator=OPTIONAL_STRING)
    """Version of the driver; None if unknown."""

    def __str__(self) -> str:
        return f"{self.backend}:{self.id}"


def _device(given: Any) -> Any:
    """Convert a mapping made by :func:`to_plain` to a device."""
    return Device(**given) if isinstance(given, Mapping) else given


@frozen(kw_only=True)
class Offer:
    """A usable device, and the precisions it supports."""

    device: Device = field(converter=_device, validator=must_be("a Device", Device))
    """The device; its ``backend`` is the name of the backend that offers it."""
    precisions: tuple[str, ...] = field(converter=strings, validator=some_of(*PRECISIONS))
    """Supported precisions, the backend's preferred one first."""
    maturity: str = field(default="stable", validator=one_of(*MATURITIES))
    """One of :data:`MATURITIES`. Of devices of one kind, the more mature ranks first."""
    notes: str = field(default="", validator=STRING)
    """A remark for ``phi3 devices``."""
    automatic: bool = field(default=True, validator=TRUTH)
    """Whether core may choose the device; if False, it is used only when the user names it as ``backend:id``."""
    layout: str = field(
        default="", validator=must_be("lower-case letters and digits", str, re.compile(r"[a-z0-9]*").fullmatch)
    )
    """A name for the format of the weights, if the devices of a backend load different ones.

    Lower-case letters and digits. Devices with the same layout share artifacts."""


@frozen(kw_only=True)
class Refusal:
    """The reason why devices are unavailable. Missing hardware is a value, not an exception."""

    reason: str = field(validator=TEXT)
    """The reason, as a sentence without a full stop."""
    remedy: str = field(default="", validator=STRING)
    """What the user can do, or a command to run."""


@frozen(kw_only=True)
class Recipe:
    """Settings for quantizing."""

    precision: str = field(validator=one_of(*PRECISIONS))
    """Precision of the weights."""
    group_size: int | None = field(default=None, validator=must_be("an integer or None", (int, type(None))))
    """Number of weights along the input dimension that share a scale.

    -1 is one scale per output channel, None the backend's default."""
    ratio: float = field(
        default=1.0, converter=float, validator=must_be("a number from 0 to 1", float, lambda given: 0 <= given <= 1)
    )
    """Share of the linear layers' weights that get int4; the others get int8."""
    symmetric: bool | None = field(default=None, validator=OPTIONAL_TRUTH)
    """Whether weights are rounded symmetrically, without zero points; None is the backend's default."""
    extra: Mapping[str, str] = field(factory=dict, converter=mapping)
    """Further settings, such as ``calibration`` and ``exporter``."""

    @group_size.validator
    def _check_group_size(self, _: attrs.Attribute[Any], given: int | None) -> None:
        if given is not None and given != -1 and given < 1:
            raise ValueError(f"group size must be -1 or positive, not {given}")


@frozen(kw_only=True)
class Source:
    """Original weights: a Hugging Face checkpoint folder with safetensors and ``model_type: phi3``, or a GGUF file."""

    path: Path = field(converter=Path)
    """The folder. That of a GGUF file has no safetensors, but ``gguf.json``; ``Checkpoint.open`` reads both."""
    model: str = field(validator=TEXT)
    """The name of the model."""
    revision: str | None = field(default=None, validator=OPTIONAL_STRING)
    """Identifies the weights: a commit of the hub, a package version, or a fingerprint of the user's files."""


@frozen(kw_only=True)
class Artifact:
    """Weights in the form that one backend loads."""

    path: Path = field(converter=Path)
    """The folder, or a single file such as GGUF."""
    backend: str = field(validator=TEXT)
    """The name of the backend."""
    precision: str = field(validator=one_of(*PRECISIONS))
    """Precision of the weights."""
    manifest: Mapping[str, Any] = field(factory=dict, converter=mapping)
    """The content of ``phi3.json``.

    Without that file it has at least ``digest``."""

    @property
    def digest(self) -> str:
        """What changes with the weights, for cache keys; empty if it is unknown."""
        return str(self.manifest.get("digest", ""))


@frozen(kw_only=True)
class Published:
    """The location of published weights that a backend loads without quantizing."""

    repository: str = field(validator=TEXT)
    """``owner/name`` on the hub, or ``package:NAME`` for weights in an installed Python package."""
    folder: str = field(default="", validator=STRING)
    """The folder in the repository; empty for its root."""
    revision: str | None = field(default=None, validator=OPTIONAL_STRING)
    """A commit, branch or tag; None for the newest commit."""


@frozen(kw_only=True)
class Finding:
    """An observation of a backend about the machine, for ``phi3 doctor``."""

    severity: str = field(validator=one_of(*SEVERITIES))
    """One of :data:`SEVERITIES`."""
    message: str = field(validator=TEXT)
    """The finding, as a sentence without a full stop."""
    remedy: str = field(default="", validator=STRING)
    """What the user can do, or a command to run."""


@runtime_checkable
class Engine(Protocol):
    """An artifact loaded on a device. It lives in a worker process.

    It is used by one thread, unless ``max_concurrency`` is over 1.
    """

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of prompt and answer together."""
        ...

    @property
    def max_concurrency(self) -> int:
        """Number of answers that the engine can generate at once; 1 unless it batches.

        So many iterators of ``generate`` may be open, each pulled in a thread of its own.
        """
        ...

    @property
    def capabilities(self) -> frozenset[str]:
        """Optional features of the engine, such as ``rewind``, ``json_schema``, ``logits`` and ``lookup``."""
        ...

    def close(self) -> None:
        """Release the engine's resources. It is not used afterwards. Closing it again does nothing."""
        ...


class Progress(Protocol):
    """A callback that reports progress."""

    def __call__(self, stage: str, done: int | None = None, total: int | None = None) -> None:
        """Report progress.

        Args:
            stage: what is being done, e.g. ``downloading``.
            done: how much of it is done; None if unknown.
            total: the whole amount, in the unit of ``done``; None if unknown.
        """
        ...


def no_progress(stage: str, done: int | None = None, total: int | None = None) -> None:
    """Ignore progress: a :class:`Progress` that does nothing."""


def to_plain(value: Any) -> Any:
    """Convert values for JSON: attrs classes to dicts, paths to strings, tuples and sets (sorted) to lists."""
    if attrs.has(type(value)):
        return {item.name: to_plain(getattr(value, item.name)) for item in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(to_plain(item) for item in value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value

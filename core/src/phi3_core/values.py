"""The values that core and plugins exchange.

All are frozen, keyword-only and validated on creation. Nested values may be given as mappings, so that
``Offer(**json.loads(text))`` is the inverse of :func:`to_plain`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import attrs
from attrs import field, frozen, validators

KINDS = ("cpu", "gpu", "dgpu", "npu")
"""Kinds of device: ``gpu`` is an integrated GPU, ``dgpu`` a discrete one with its own memory."""
PRECISIONS = ("fp16", "int8", "int4")
"""Precisions of weights."""
MATURITIES = ("stable", "experimental", "legacy")
"""Maturities of an offer, best first."""
SEVERITIES = ("info", "warning", "error")
"""Severities of a finding."""
LOOKUPS = ("auto", "on", "off")
"""Whether prompt lookup proposes tokens: ``auto`` where the engine has it."""
MOST_LOGPROBS = 20
"""The largest number of likely tokens that can be asked for with each token."""


def _one_of(*allowed: str) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    return validators.and_(validators.instance_of(str), validators.in_(allowed))


def _strings(given: Any) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"expected a sequence of strings, got {given!r}")
    return tuple(given)


def _mapping(given: Mapping[str, Any]) -> dict[str, Any]:
    return dict(given)


def _ids(given: Any) -> tuple[int, ...]:
    return tuple(int(item) for item in given)


def values_of(kind: type[Any], given: Iterable[Any]) -> tuple[Any, ...]:
    """Return ``given`` as values of one class, for attrs converters. A mapping is taken as the fields of a value."""
    return tuple(kind(**item) if isinstance(item, Mapping) else item for item in given)


_text = validators.and_(validators.instance_of(str), validators.min_len(1))
_optional_text = validators.optional(validators.instance_of(str))
_count = validators.and_(validators.instance_of(int), validators.ge(0))
_optional_count = validators.optional(_count)
_truth = validators.instance_of(bool)


@frozen(kw_only=True)
class Machine:
    """The machine that phi3 runs on."""

    os: str = field(validator=_text)
    """``linux``, ``windows`` or ``macos``."""
    architecture: str = field(validator=_text)
    """``x86_64`` or ``arm64``; anything else as the system names it."""
    memory_bytes: int = field(validator=_count)
    """Total main memory in bytes, or what a control group of Linux allows of it."""
    on_battery: bool = field(default=False, validator=_truth)
    """Whether the machine runs on battery power."""


@frozen(kw_only=True)
class Device:
    """A device of a backend, written ``backend:id``."""

    backend: str = field(validator=_text)
    """The name of the backend."""
    id: str = field(validator=_text)
    """The backend's identifier of the device, e.g. ``GPU.0``."""
    kind: str = field(validator=_one_of(*KINDS))
    """One of :data:`KINDS`."""
    name: str = field(validator=_text)
    """The name to display, e.g. ``Intel(R) Arc(TM) B390 GPU``."""
    memory_bytes: int | None = field(default=None, validator=_optional_count)
    """Memory that the device can use, in bytes; None if unknown."""
    driver: str | None = field(default=None, validator=_optional_text)
    """Version of the driver; None if unknown."""

    def __str__(self) -> str:
        return f"{self.backend}:{self.id}"


def _device(given: Any) -> Any:
    """Convert a mapping made by :func:`to_plain` to a device."""
    return Device(**given) if isinstance(given, Mapping) else given


@frozen(kw_only=True)
class Offer:
    """A usable device, and the precisions it supports."""

    device: Device = field(converter=_device, validator=validators.instance_of(Device))
    """The device; its ``backend`` is the name of the backend that offers it."""
    precisions: tuple[str, ...] = field(
        converter=_strings,
        validator=validators.and_(validators.min_len(1), validators.deep_iterable(_one_of(*PRECISIONS))),
    )
    """Supported precisions, the backend's preferred one first."""
    maturity: str = field(default="stable", validator=_one_of(*MATURITIES))
    """One of :data:`MATURITIES`. Of devices of one kind, the more mature ranks first."""
    notes: str = field(default="", validator=validators.instance_of(str))
    """A remark for ``phi3 devices``."""
    automatic: bool = field(default=True, validator=_truth)
    """Whether core may choose the device; if False, it is used only when the user names it as ``backend:id``."""
    layout: str = field(default="", validator=validators.matches_re(r"[a-z0-9]*"))
    """A name for the format of the weights, if the devices of a backend load different ones.

    Lower-case letters and digits. Devices with the same layout share artifacts."""


@frozen(kw_only=True)
class Refusal:
    """The reason why devices are unavailable. Missing hardware is a value, not an exception."""

    reason: str = field(validator=_text)
    """The reason, as a sentence without a full stop."""
    remedy: str = field(default="", validator=validators.instance_of(str))
    """What the user can do, or a command to run."""


@frozen(kw_only=True)
class Recipe:
    """Settings for quantizing."""

    precision: str = field(validator=_one_of(*PRECISIONS))
    """Precision of the weights."""
    group_size: int | None = field(default=None, validator=validators.optional(validators.instance_of(int)))
    """Number of weights along the input dimension that share a scale.

    -1 is one scale per output channel, None the backend's default."""
    ratio: float = field(
        default=1.0, converter=float, validator=validators.and_(validators.ge(0.0), validators.le(1.0))
    )
    """Share of the linear layers' weights that get int4; the others get int8."""
    symmetric: bool | None = field(default=None, validator=validators.optional(_truth))
    """Whether weights are rounded symmetrically, without zero points; None is the backend's default."""
    extra: Mapping[str, str] = field(factory=dict, converter=_mapping)
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
    model: str = field(validator=_text)
    """The name of the model."""
    revision: str | None = field(default=None, validator=_optional_text)
    """Identifies the weights: a commit of the hub, a package version, or a fingerprint of the user's files."""


@frozen(kw_only=True)
class Artifact:
    """Weights in the form that one backend loads."""

    path: Path = field(converter=Path)
    """The folder, or a single file such as GGUF."""
    backend: str = field(validator=_text)
    """The name of the backend."""
    precision: str = field(validator=_one_of(*PRECISIONS))
    """Precision of the weights."""
    manifest: Mapping[str, Any] = field(factory=dict, converter=_mapping)
    """The content of ``phi3.json``.

    Without that file it has at least ``digest``."""

    @property
    def digest(self) -> str:
        """What changes with the weights, for cache keys; empty if it is unknown."""
        return str(self.manifest.get("digest", ""))


@frozen(kw_only=True)
class Published:
    """The location of published weights that a backend loads without quantizing."""

    repository: str = field(validator=_text)
    """``owner/name`` on the hub, or ``package:NAME`` for weights in an installed Python package."""
    folder: str = field(default="", validator=validators.instance_of(str))
    """The folder in the repository; empty for its root."""
    revision: str | None = field(default=None, validator=_optional_text)
    """A commit, branch or tag; None for the newest commit."""


@frozen(kw_only=True)
class Sampling:
    """How the next token is chosen. A temperature of 0 is greedy and repeatable."""

    temperature: float = field(default=0.0, converter=float)
    """The logits are divided by it; 0 always takes the likeliest token."""
    top_k: int = field(default=0, validator=_count)
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = field(default=1.0, converter=float)
    """Keep the likeliest tokens that together reach this probability (nucleus sampling); 1 keeps all."""
    repetition_penalty: float = field(default=1.0, converter=float)
    """Penalize tokens that have occurred, as in CTRL (Keskar et al., 2019): over 1 discourages them, 1 has no effect.

    Positive logits are divided by it, negative ones multiplied."""
    seed: int | None = field(default=None, validator=_optional_count)
    """Makes sampling repeatable; 0 to 2**32 - 1, None for a random seed."""

    @temperature.validator
    def _check_temperature(self, _: attrs.Attribute[Any], given: float) -> None:
        if not (math.isfinite(given) and given >= 0):
            raise ValueError(f"temperature must be 0 (greedy) or more, not {given}")

    @top_p.validator
    def _check_top_p(self, _: attrs.Attribute[Any], given: float) -> None:
        if not 0 < given <= 1:
            raise ValueError(f"top-p must be over 0 and at most 1, not {given}")

    @repetition_penalty.validator
    def _check_repetition_penalty(self, _: attrs.Attribute[Any], given: float) -> None:
        if not (math.isfinite(given) and given > 0):
            raise ValueError(f"repetition penalty must be over 0, not {given}")

    @seed.validator
    def _check_seed(self, _: attrs.Attribute[Any], given: int | None) -> None:
        if given is not None and given >= 2**32:
            raise ValueError(f"seed must fit 32 bits, not {given}")


def _sampling(given: Any) -> Any:
    """Convert a mapping made by :func:`to_plain` to sampling settings."""
    return Sampling(**given) if isinstance(given, Mapping) else given


@frozen(kw_only=True)
class GenerationRequest:
    """A prompt in token ids, sampling settings, and stop conditions."""

    prompt_ids: tuple[int, ...] = field(converter=_ids, validator=validators.min_len(1))
    """Token ids of the prompt, chat template included."""
    max_new_tokens: int = field(validator=validators.and_(validators.instance_of(int), validators.ge(1)))
    """Maximum number of ids to generate. Together with the prompt they fit the engine's context."""
    sampling: Sampling = field(factory=Sampling, converter=_sampling, validator=validators.instance_of(Sampling))
    """How the next token is chosen."""
    stop_ids: tuple[int, ...] = field(default=(), converter=_ids)
    """Ids that end the answer and are not part of it."""
    json_schema: str | None = field(default=None, validator=_optional_text)
    """A JSON schema, as text, that the answer follows; only for engines with the capability ``json_schema``."""
    lookup: str = field(default="auto", validator=_one_of(*LOOKUPS))
    """One of :data:`LOOKUPS`: prompt lookup where the engine has it, required, or not used."""
    logprobs: int | None = field(
        default=None, validator=validators.optional(validators.and_(_count, validators.le(MOST_LOGPROBS)))
    )
    """With how many likely tokens each id comes, as a :class:`ScoredToken`; None for plain ids.

    Only for engines with the capability ``logprobs``."""
    answered: int = field(default=0, validator=_count)
    """How many ids at the end of the prompt begin the answer: an engine that failed has made them."""
    grammar: Any = field(default=None, eq=False, repr=False)
    """What ``Answer`` follows for ``json_schema``. Core sets it, in the worker process."""


class ScoredToken(int):
    """A token id with logarithmic probabilities, which ``generate`` yields if the request has ``logprobs``."""

    logprob: float
    """The natural logarithm of its probability, from 0 down."""
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens and theirs, likeliest first, as many as the request asks for."""

    def __new__(cls, token: int, logprob: float, top: Iterable[tuple[int, float]] = ()) -> ScoredToken:  # noqa: PYI034
        """Return the id ``token`` with its attributes."""
        made = super().__new__(cls, token)
        made.logprob, made.top = logprob, tuple(top)
        return made


@frozen(kw_only=True)
class Finding:
    """An observation of a backend about the machine, for ``phi3 doctor``."""

    severity: str = field(validator=_one_of(*SEVERITIES))
    """One of :data:`SEVERITIES`."""
    message: str = field(validator=_text)
    """The finding, as a sentence without a full stop."""
    remedy: str = field(default="", validator=validators.instance_of(str))
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

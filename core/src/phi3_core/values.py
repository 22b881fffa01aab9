"""The values that cross the plugin boundary.

All are frozen, keyword-only and validated when they are made; nested values may be given as mappings, so
that ``Offer(**json.loads(text))`` is the inverse of :func:`to_plain`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import attrs
from attrs import field, frozen, validators

KINDS = ("cpu", "gpu", "dgpu", "npu")
"""Kinds of device. ``gpu`` is integrated, ``dgpu`` has memory of its own."""
PRECISIONS = ("fp16", "int8", "int4")
MATURITIES = ("stable", "experimental", "legacy")
SEVERITIES = ("info", "warning", "error")


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
    """Return values of one kind, each of which may be given as the mapping of its fields: for attrs converters."""
    return tuple(kind(**item) if isinstance(item, Mapping) else item for item in given)


_text = validators.and_(validators.instance_of(str), validators.min_len(1))
_optional_text = validators.optional(validators.instance_of(str))
_count = validators.and_(validators.instance_of(int), validators.ge(0))
_optional_count = validators.optional(_count)
_truth = validators.instance_of(bool)


@frozen(kw_only=True)
class Machine:
    """The computer: what every backend may want to know before it looks at its own hardware."""

    os: str = field(validator=_text)
    """``linux``, ``windows`` or ``macos``."""
    architecture: str = field(validator=_text)
    """``x86_64`` or ``arm64``; anything else as the system names it."""
    memory_bytes: int = field(validator=_count)
    on_battery: bool = field(default=False, validator=_truth)


@frozen(kw_only=True)
class Device:
    """Something a backend can drive, written ``backend:id``."""

    backend: str = field(validator=_text)
    id: str = field(validator=_text)
    kind: str = field(validator=_one_of(*KINDS))
    name: str = field(validator=_text)
    """What a person calls it, e.g. ``Intel(R) Arc(TM) B390 GPU``."""
    memory_bytes: int | None = field(default=None, validator=_optional_count)
    """Memory that the device can use, or None if it is not known."""
    driver: str | None = field(default=None, validator=_optional_text)

    def __str__(self) -> str:
        return f"{self.backend}:{self.id}"


def _device(given: Any) -> Any:
    """Also takes the mapping that :func:`to_plain` made of a device."""
    return Device(**given) if isinstance(given, Mapping) else given


@frozen(kw_only=True)
class Offer:
    """A device that works, and the precisions it runs, the backend's preferred one first."""

    device: Device = field(converter=_device, validator=validators.instance_of(Device))
    precisions: tuple[str, ...] = field(
        converter=_strings,
        validator=validators.and_(validators.min_len(1), validators.deep_iterable(_one_of(*PRECISIONS))),
    )
    maturity: str = field(default="stable", validator=_one_of(*MATURITIES))
    notes: str = field(default="", validator=validators.instance_of(str))
    automatic: bool = field(default=True, validator=_truth)
    """False if the device is to be used only when the user names it in full."""
    layout: str = field(default="", validator=validators.matches_re(r"[a-z0-9]*"))
    """A word for the form of weights that this device loads, if the backend's devices do not all load the same."""


@frozen(kw_only=True)
class Refusal:
    """Why something cannot be used here, and what would change that. Being unavailable is data, not an error."""

    reason: str = field(validator=_text)
    remedy: str = field(default="", validator=validators.instance_of(str))


@frozen(kw_only=True)
class Recipe:
    """How to quantize."""

    precision: str = field(validator=_one_of(*PRECISIONS))
    group_size: int | None = field(default=None, validator=validators.optional(validators.instance_of(int)))
    """Weights that share one scale along the input dimension; -1 is one scale a channel, None the backend's choice."""
    ratio: float = field(
        default=1.0, converter=float, validator=validators.and_(validators.ge(0.0), validators.le(1.0))
    )
    """Share of the linear layers that get the low precision; the rest get int8."""
    symmetric: bool | None = field(default=None, validator=validators.optional(_truth))
    extra: Mapping[str, str] = field(factory=dict, converter=_mapping)

    @group_size.validator
    def _check_group_size(self, _: attrs.Attribute[Any], given: int | None) -> None:
        if given is not None and given != -1 and given < 1:
            raise ValueError(f"group size must be -1 or positive, not {given}")


@frozen(kw_only=True)
class Source:
    """Original weights: a Hugging Face checkpoint folder with safetensors and ``model_type: phi3``."""

    path: Path = field(converter=Path)
    model: str = field(validator=_text)
    revision: str | None = field(default=None, validator=_optional_text)


@frozen(kw_only=True)
class Artifact:
    """A folder with weights in the form that one backend loads.

    ``manifest`` is the content of its ``phi3.json``. A folder that came without one has a manifest of what is
    known, at least ``digest``: a word that changes when the weights do, for keys of caches.
    """

    path: Path = field(converter=Path)
    backend: str = field(validator=_text)
    precision: str = field(validator=_one_of(*PRECISIONS))
    manifest: Mapping[str, Any] = field(factory=dict, converter=_mapping)


@frozen(kw_only=True)
class Published:
    """Where weights lie that are ready to load: a hub repository, and a folder in it.

    ``repository`` is ``owner/name`` on the hub, or ``package:NAME`` for weights that an installed Python
    package carries. ``revision`` is a commit, a tag, or None for the newest.
    """

    repository: str = field(validator=_text)
    folder: str = field(default="", validator=validators.instance_of(str))
    revision: str | None = field(default=None, validator=_optional_text)


@frozen(kw_only=True)
class Sampling:
    """How the next token is picked. ``temperature=0`` is greedy and repeatable."""

    temperature: float = field(default=0.0, converter=float)
    top_k: int = field(default=0, validator=_count)
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = field(default=1.0, converter=float)
    """Keep the likeliest tokens that together reach this probability (nucleus sampling); 1 keeps all."""
    repetition_penalty: float = field(default=1.0, converter=float)
    """Divide the logits of tokens that occurred, as in CTRL (Keskar et al., 2019); 1 changes nothing."""
    seed: int | None = field(default=None, validator=_optional_count)

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
    """Also takes the mapping that :func:`to_plain` made of a sampling."""
    return Sampling(**given) if isinstance(given, Mapping) else given


@frozen(kw_only=True)
class GenerationRequest:
    """Token ids in, and when to stop. The ids of the prompt and of the answer count towards the context."""

    prompt_ids: tuple[int, ...] = field(converter=_ids, validator=validators.min_len(1))
    max_new_tokens: int = field(validator=validators.and_(validators.instance_of(int), validators.ge(1)))
    sampling: Sampling = field(factory=Sampling, converter=_sampling, validator=validators.instance_of(Sampling))
    stop_ids: tuple[int, ...] = field(default=(), converter=_ids)
    json_schema: str | None = field(default=None, validator=_optional_text)


@frozen(kw_only=True)
class Finding:
    """One observation of a backend about the machine, for ``phi3 doctor``."""

    severity: str = field(validator=_one_of(*SEVERITIES))
    message: str = field(validator=_text)
    remedy: str = field(default="", validator=validators.instance_of(str))


@runtime_checkable
class Engine(Protocol):
    """An artifact loaded on a device. It lives in a worker process and is driven by one thread."""

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together that the engine can hold."""
        ...

    @property
    def max_concurrency(self) -> int:
        """Requests that the engine can work on at once; 1 unless it batches."""
        ...

    @property
    def capabilities(self) -> frozenset[str]:
        """Words such as ``rewind``, ``json_schema``, ``logits``, ``lookup``."""
        ...

    def close(self) -> None:
        """Free what the engine holds. It is not used afterwards."""
        ...


class Progress(Protocol):
    """Called with a stage and how far it is; ``done`` and ``total`` are in one unit, or None if not known."""

    def __call__(self, stage: str, done: int | None = None, total: int | None = None) -> None: ...


def no_progress(stage: str, done: int | None = None, total: int | None = None) -> None:
    """A :class:`Progress` that shows nothing."""


def to_plain(value: Any) -> Any:
    """Reduce values to what JSON knows: attrs classes to dicts, paths to strings, tuples and sets to lists."""
    if attrs.has(type(value)):
        return {item.name: to_plain(getattr(value, item.name)) for item in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(to_plain(item) for item in value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value

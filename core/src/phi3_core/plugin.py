"""Backends as plugins: discovery from package metadata, and typed calls of one plugin's hooks.

The user's process only reads metadata (:func:`installed`). Plugins are imported and called in worker processes
(:class:`PluginHooks`, :mod:`phi3_core.worker`), so a plugin that hangs, exits or crashes does not affect the rest.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import frozen

from .errors import BackendError
from .values import (
    PRECISIONS,
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

ENTRY_POINT_GROUP = "phi3"

T = TypeVar("T")


@frozen(kw_only=True)
class Backend:
    """An installed backend."""

    name: str
    """The entry point's name."""
    target: str
    """The entry point's value, ``module`` or ``module:attribute``."""
    distribution: str
    version: str


@frozen(kw_only=True)
class Broken:
    """A backend that fails to import, raises, hangs, dies or returns an invalid result. Others are not affected."""

    plugin: str
    distribution: str
    error: str


def installed() -> tuple[tuple[Backend, ...], tuple[Broken, ...]]:
    """Return the installed backends, and as broken those whose name another distribution has already registered."""
    from .metadata import distributions  # start-up: worker processes need no metadata

    registered, unreadable = distributions(ENTRY_POINT_GROUP)
    backends: dict[str, Backend] = {}
    broken = [
        Broken(plugin=Path(each.path).stem, distribution=each.path, error=f"its metadata cannot be read: {each.error}")
        for each in unreadable
        if each.in_group
    ]
    for found in (
        Backend(name=name, target=target, distribution=each.name, version=each.version)
        for each in registered
        for name, target in each.entry_points
    ):
        known = backends.setdefault(found.name, found)
        # A distribution may be found twice: an editable install that is also on PYTHONPATH.
        if (known.distribution, known.target) != (found.distribution, found.target):
            error = f"the name {found.name!r} is taken by {known.distribution} {known.version}; uninstall one of them"
            broken.append(Broken(plugin=found.name, distribution=found.distribution, error=error))
    return tuple(sorted(backends.values(), key=lambda backend: backend.name)), tuple(broken)


def fault(hook: str, backend: Backend, words: str) -> BackendError:
    """Return the error for what a hook of a backend did against the contract."""
    return BackendError(f"{hook} of {backend.distribution} {backend.version} {words}")


def check_hook(name: str, backend: Backend, hooks: Sequence[str]) -> None:
    """Raise :class:`BackendError` if a backend does not implement the hook ``name``."""
    if name not in hooks:
        raise BackendError(
            f"{backend.name} ({backend.distribution} {backend.version}) does not implement the hook {name}",
            hint="phi3 plugins lists the hooks of each backend; choose one with --device",
        )


class PluginHooks:
    """The hooks of one backend. A result of the wrong type raises :class:`BackendError`, which names the hook."""

    def __init__(self, backend: Backend) -> None:
        """Import the plugin and validate its hooks against the specs. Exceptions of the import are not caught.

        Raises:
            BackendError: the plugin was written for another contract, has an unknown hook, or lacks a required one.
        """
        # start-up: only worker processes need pluggy
        import pluggy

        from . import hookspecs

        self.backend = backend
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        plugin = _import(backend)
        _check_contract(backend)
        try:
            self._manager.register(plugin, name=backend.name)
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise BackendError(" ".join(str(error).split())) from error
        callers = self._manager.get_hookcallers(plugin) or []
        self.names = tuple(sorted(caller.name for caller in callers))
        missing = [name for name in hookspecs.REQUIRED if name not in self.names]
        if missing:
            raise BackendError(f"{backend.target} does not implement {', '.join(missing)}")

    def fault(self, hook: str, words: str) -> BackendError:
        """Return the error for what a hook did against the contract. It names the hook and the distribution."""
        return fault(hook, self.backend, words)

    def _one(self, name: str, kind: type[T] | tuple[type[T], ...], **arguments: object) -> T:
        answer = getattr(self._manager.hook, name)(**arguments)
        if not isinstance(answer, kind):
            wanted = kind if isinstance(kind, tuple) else (kind,)
            words = " or ".join(item.__name__ for item in wanted)
            raise self.fault(name, f"returned {_describe(answer)}, not {words}")
        return answer

    def _many(self, name: str, kinds: tuple[type, ...], **arguments: object) -> list[Any]:
        # Not `firstresult`: pluggy returns a list with this one backend's result, or an empty one for None.
        answers = getattr(self._manager.hook, name)(**arguments) or [None]
        words = " and ".join(kind.__name__ for kind in kinds)
        items: list[Any] = []
        for answer in answers:
            if isinstance(answer, (str, bytes)) or not isinstance(answer, Sequence):
                raise BackendError(f"{name} returned {_describe(answer)}, not a sequence of {words}")
            items += answer
        for item in items:
            if not isinstance(item, kinds):
                raise BackendError(f"{name} returned {_describe(item)} among its answers, which are to be {words}")
        return items

    def detect(self, machine: Machine) -> list[Offer | Refusal]:
        """Call ``detect``, and check that every device belongs to this backend and is offered once.

        A runtime that cannot be imported because Windows lacks the C++ runtime is a refusal.
        """
        try:
            answers: list[Offer | Refusal] = self._many("detect", (Offer, Refusal), machine=machine)
        except ImportError as error:
            from . import windows  # start-up: ctypes, which only a failure needs

            if windows.has_cpp_runtime():
                raise
            return [Refusal(reason=f"{windows.CPP_RUNTIME_MISSING}: {error}", remedy=windows.CPP_RUNTIME_REMEDY)]
        devices = [answer.device for answer in answers if isinstance(answer, Offer)]
        for device in devices:
            if device.backend != self.backend.name:
                raise BackendError(f"detect offered {device}, which is not a device of {self.backend.name}")
        if len({str(device) for device in devices}) != len(devices):
            raise BackendError(f"detect offered a device twice: {', '.join(map(str, devices))}")
        return answers

    def recognize(self, path: Path) -> str | None:
        """Call ``recognize``, and check that it returns a known precision or None."""
        precision = self._one("recognize", (str, type(None)), path=path)
        if precision is not None and precision not in PRECISIONS:
            raise self.fault("recognize", f"returned {shortened(precision)}, not one of {', '.join(PRECISIONS)}")
        return precision

    def published(self, model: str, device: Device, precision: str) -> Published | None:
        """Call ``published``."""
        return self._one("published", (Published, type(None)), model=model, device=device, precision=precision)

    def quantize(
        self, source: Source, device: Device, recipe: Recipe, output: Path, progress: Progress
    ) -> Mapping[str, str] | None:
        """Call ``quantize``."""
        kinds: Any = (Mapping, type(None))
        given = {"source": source, "device": device, "recipe": recipe, "output": output, "progress": progress}
        tools: Mapping[str, str] | None = self._one("quantize", kinds, **given)
        for name, version in (tools or {}).items():
            if not (isinstance(name, str) and isinstance(version, str)):
                words = f"{shortened(name)}: {shortened(version)}"
                raise self.fault("quantize", f"returned {words} among the tools, which are names and versions")
        return tools

    def load(
        self,
        artifact: Artifact,
        device: Device,
        options: Mapping[str, str],
        purpose: str,
        prompt_tokens: int | None = None,
    ) -> Engine:
        """Call ``load``."""
        # mypy does not accept a protocol as type[T], although it is `runtime_checkable`
        kind: Any = Engine
        given = {"artifact": artifact, "device": device, "options": options, "purpose": purpose}
        engine: Engine = self._one("load", kind, **given, prompt_tokens=prompt_tokens)
        return engine

    def generate(self, engine: Engine, request: GenerationRequest) -> Iterator[int]:
        """Call ``generate``."""
        kind: Any = Iterator
        ids: Iterator[int] = self._one("generate", kind, engine=engine, request=request)
        return ids

    def logits(self, engine: Engine, ids: Sequence[int]) -> np.ndarray:
        """Call ``logits``; the caller checks the shape."""
        found: np.ndarray = self._manager.hook.logits(engine=engine, ids=ids)
        return found

    def diagnose(self, machine: Machine) -> list[Finding]:
        """Call ``diagnose``."""
        return self._many("diagnose", (Finding,), machine=machine)


def _import(backend: Backend) -> Any:
    """Return the object of the entry point."""
    from importlib.metadata import EntryPoint

    return EntryPoint(name=backend.name, value=backend.target, group=ENTRY_POINT_GROUP).load()


def _check_contract(backend: Backend) -> None:
    """Check the contract that a plugin's module states, if any, against the supported ones."""
    from .hookspecs import CONTRACT, OLDEST_CONTRACT  # start-up: as in PluginHooks

    stated = getattr(sys.modules[backend.target.partition(":")[0]], "CONTRACT", CONTRACT)
    if not isinstance(stated, int) or not OLDEST_CONTRACT <= stated <= CONTRACT:
        newer = isinstance(stated, int) and stated > CONTRACT
        raise BackendError(
            f"{backend.distribution} {backend.version} was written for contract {stated!r}, and this phi3-core knows "
            f"{_contracts(OLDEST_CONTRACT, CONTRACT)}: upgrade {'phi3-core' if newer else backend.distribution}"
        )


def _contracts(oldest: int, newest: int) -> str:
    return str(newest) if oldest == newest else f"{oldest} to {newest}"


def shortened(value: object, longest: int = 60) -> str:
    """Return the representation of a plugin's value on one short line."""
    try:
        text = " ".join(reprlib.repr(value).split())  # does not write out what is large
    except Exception:  # as of an integer with more digits than Python converts
        text = f"a value of {type(value).__name__}"
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _describe(answer: object) -> str:
    return "None" if answer is None else f"a {type(answer).__name__} ({shortened(answer)})"

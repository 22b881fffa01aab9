"""Backends as plugins: typed calls of one plugin's hooks.

The user's process only reads metadata (:mod:`.discovery`, whose names are here, too). Plugins are imported and called
in worker processes (:class:`PluginHooks`, :mod:`phi3_core.worker`), so a plugin that hangs, exits or crashes does not
affect the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .discovery import ENTRY_POINT_GROUP, Backend, Broken, installed, newer_core
from .errors import BackendError, Phi3Error
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
    no_progress,
)
from .wording import described, shortened

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "ENTRY_POINT_GROUP",
    "Backend",
    "Broken",
    "PluginHooks",
    "check_hook",
    "fault",
    "installed",
    "name_device",
    "newer_core",
]

T = TypeVar("T")


def fault(hook: str, backend: Backend, words: str, kind: type[BackendError] = BackendError) -> BackendError:
    """Return the error for what a hook of a backend did against the contract."""
    return kind(f"{hook} of {backend.release} {words}")


def name_device(error: Phi3Error, device: Device) -> None:
    """Put the device that something failed on into the error's message, once."""
    if not error.message.startswith(str(device)):
        error.message = f"{device}: {error.message}"
        error.args = (error.message,)


def check_hook(name: str, backend: Backend, hooks: Sequence[str]) -> None:
    """Raise :class:`BackendError` if a backend does not implement the hook ``name``."""
    if name not in hooks:
        raise BackendError(
            f"{backend.name} ({backend.release}) does not implement the hook {name}",
            hint="phi3 plugins lists the hooks of each backend; choose one with --device",
        )


_OF_ENGINES = ["context_length", "max_concurrency", "capabilities", "close"]


class PluginHooks:
    """The hooks of one backend. A result of the wrong type raises :class:`BackendError`, which names the hook."""

    def __init__(self, backend: Backend) -> None:
        """Import the plugin and validate its hooks against the specs. Exceptions of the import are not caught.

        Raises:
            BackendError: the plugin was written for another contract, has an unknown hook, or lacks a required one.
        """
        from .registration import register  # start-up: pluggy, which only worker processes need

        self.backend = backend
        self._manager, self.names = register(backend)

    def fault(self, hook: str, words: str, kind: type[BackendError] = BackendError) -> BackendError:
        """Return the error for what a hook did against the contract. It names the hook and the distribution."""
        return fault(hook, self.backend, words, kind)

    def _one(self, name: str, kind: type[T] | tuple[type[T], ...], **arguments: object) -> T:
        answer = getattr(self._manager.hook, name)(**arguments)
        if not isinstance(answer, kind):
            wanted = kind if isinstance(kind, tuple) else (kind,)
            words = " or ".join(item.__name__ for item in wanted)
            if (
                kind is Engine
                and (lacking := [each for each in _OF_ENGINES if not hasattr(answer, each)]) != _OF_ENGINES
            ):
                raise self.fault(name, f"returned an engine without {', '.join(lacking)}")
            raise self.fault(name, f"returned {described(answer)}, not {words}")
        return answer

    def _many(self, name: str, kinds: tuple[type, ...], **arguments: object) -> list[Any]:
        # Not `firstresult`: pluggy returns a list with this one backend's result, or an empty one for None.
        answers = getattr(self._manager.hook, name)(**arguments) or [None]
        words = " and ".join(kind.__name__ for kind in kinds)
        items: list[Any] = []
        for answer in answers:
            if isinstance(answer, (str, bytes)) or not isinstance(answer, Sequence):
                raise BackendError(f"{name} returned {described(answer)}, not a sequence of {words}")
            items += answer
        for item in items:
            if not isinstance(item, kinds):
                raise BackendError(f"{name} returned {described(item)} among its answers, which are to be {words}")
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
        # Users name devices in any case.
        if len({str(device).casefold() for device in devices}) != len(devices):
            raise BackendError(f"detect offered a device twice, in whatever case: {', '.join(map(str, devices))}")
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
        *,
        progress: Progress = no_progress,
    ) -> Engine:
        """Call ``load``."""
        # mypy does not accept a protocol as type[T], although it is `runtime_checkable`
        kind: Any = Engine
        given = {"artifact": artifact, "device": device, "options": options, "purpose": purpose}
        engine: Engine = self._one("load", kind, **given, prompt_tokens=prompt_tokens, progress=progress)
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

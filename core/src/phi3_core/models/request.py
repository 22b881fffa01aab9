"""What is asked for when a model is to be had, and who is asked."""

from __future__ import annotations

from typing import Any, Protocol

from attrs import frozen

from phi3_core.plugin import Backend
from phi3_core.store.store import Form
from phi3_core.values import Device, Progress, Recipe

from . import local
from .ref import Reference


class Asked(Protocol):
    """The worker of the device's backend, as far as obtaining goes."""

    hooks: tuple[str, ...]

    backend: Backend

    def call(self, verb: str, *, limit_s: float, progress: Progress | None = None, **arguments: object) -> Any: ...


@frozen(kw_only=True)
class Need:
    """A model, and the device that it is to be had for."""

    reference: Reference
    device: Device
    precisions: tuple[str, ...]
    """The first that can be had is taken."""
    layout: str = ""
    recipe: Recipe | None = None
    """How to quantize, if the user said so: what is in the store or published is not taken instead."""
    check: bool = True
    """Whether the quality of what is quantized is measured, and noise refused."""

    @property
    def name(self) -> str:
        """The name under which the store keeps what is made of the model."""
        path = self.reference.path
        return self.reference.name if path is None else f"{self.reference.name}-{local.fingerprint(path)[:8]}"

    def form(self, precision: str) -> Form:
        return Form(backend=self.device.backend, precision=precision, layout=self.layout)

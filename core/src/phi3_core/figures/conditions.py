"""The conditions that hold now: versions of a backend and of what it requires, the driver, and the weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from attrs import frozen

from phi3_core.distributions import canonical_name, installed_versions
from phi3_core.plugin import Backend
from phi3_core.values import Artifact, Device

from .values import Conditions, Subject

_OWN = "phi3-core"


@frozen(kw_only=True)
class LoadedArtifact:
    """An artifact on a device."""

    backend: Backend
    device: Device
    artifact: Artifact
    options: Mapping[str, str] = {}
    """Options of the engine."""

    def subject(self, model: str) -> Subject:
        """Return what its figures are of, for the name of a model in the store."""
        names = {"backend": self.device.backend, "device": self.device.id}
        return Subject(**names, model=model, precision=self.artifact.precision)

    def conditions(self, runtime: Iterable[str] | None = None) -> Conditions:
        """Return the conditions that hold now; see :func:`current`."""
        return current(self.backend, self.device, content=self.artifact.digest, runtime=runtime)


def current(backend: Backend, device: Device, *, content: str = "", runtime: Iterable[str] | None = None) -> Conditions:
    """Return the conditions that hold now.

    Args:
        backend: the device's backend.
        device: the device.
        content: the digest of the artifact; empty if it is unknown.
        runtime: the distributions to give the versions of; by default all that the backend requires, which takes
            longer to find out.
    """
    return Conditions(
        version=backend.release,
        runtime=installed_versions(_required(backend.distribution) if runtime is None else runtime),
        driver=device.driver,
        name=device.name,
        content=content,
    )


def _required(distribution: str) -> Mapping[str, None]:
    """Return the canonical names of the distributions that one requires, by its extras too, apart from core."""
    import importlib.metadata  # start-up: a large module, needed only after an answer

    try:
        texts = importlib.metadata.requires(distribution) or []
    except Exception:  # damaged metadata raises errors of many kinds
        texts = []
    names = (canonical_name(re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0]) for text in texts)
    return dict.fromkeys(name for name in names if name != _OWN)

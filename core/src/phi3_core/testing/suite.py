"""The contract's tests of one installed backend, as ``phi3 plugins check`` runs them."""

from __future__ import annotations

import os

from phi3_core.metadata import distributions, entry_point
from phi3_core.plugin import installed

from . import BackendContract

BACKEND, DEVICE, PRECISION = "PHI3_CHECK_BACKEND", "PHI3_CHECK_DEVICE", "PHI3_CHECK_PRECISION"
"""Environment variables: the backend, the id of the device, and the only precision to test."""
GROUP = "phi3_testing"
"""The group of entry points that name the class of tests of a backend."""


def own_class(name: str) -> type[BackendContract]:
    """Return the class of tests that a backend's own distribution names, with its quirks; else the contract's.

    Raises:
        BackendError: the entry point names no module.
        TypeError: it is no subclass of :class:`BackendContract`.
    """
    owner = next((each.distribution for each in installed()[0] if each.name == name), None)
    for distribution in distributions(GROUP)[0]:
        for key, value in distribution.entry_points:
            if distribution.name == owner and key == name:
                found = entry_point(key, value, GROUP).load()
                if not (isinstance(found, type) and issubclass(found, BackendContract)):
                    raise TypeError(f"{value} of {owner} is no subclass of BackendContract")
                return found
    return BackendContract


class TestBackend(own_class(os.environ.get(BACKEND, ""))):  # type: ignore[misc]
    """The tests, with the settings that the environment names."""

    backend = os.environ.get(BACKEND, "")
    if os.environ.get(DEVICE):
        device = os.environ[DEVICE]
    if os.environ.get(PRECISION):
        precisions = (os.environ[PRECISION],)

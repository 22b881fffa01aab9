"""The contract's tests of one installed backend, as ``phi3 plugins check`` runs them."""

from __future__ import annotations

import os

from phi3_core.values import PRECISIONS

from . import BackendContract

BACKEND, DEVICE, PRECISION = "PHI3_CHECK_BACKEND", "PHI3_CHECK_DEVICE", "PHI3_CHECK_PRECISION"
"""Environment variables: the backend, the id of the device, and the only precision to test."""


class TestBackend(BackendContract):
    """The tests, with the settings that the environment names."""

    backend = os.environ.get(BACKEND, "")
    device = os.environ.get(DEVICE) or None
    precisions = tuple(filter(None, [os.environ.get(PRECISION)])) or PRECISIONS

"""What every backend does, by phi3-core's conformance kit."""

from __future__ import annotations

from phi3_core.testing import BackendContract


class TestTorch(BackendContract):
    backend = "torch"

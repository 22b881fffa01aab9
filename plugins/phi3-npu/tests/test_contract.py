"""What every backend does, on the library's CPU fallback."""

from __future__ import annotations

from phi3_core.testing import BackendContract


class TestNpu(BackendContract):
    backend = "npu"
    device = "CPU"

"""What every backend does, on OpenVINO's CPU device."""

from __future__ import annotations

from phi3_core.testing import BackendContract


class TestOpenVino(BackendContract):
    backend = "openvino"
    device = "CPU"

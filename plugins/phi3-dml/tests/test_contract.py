"""What every backend does, on ONNX Runtime's CPU provider."""

from __future__ import annotations

import pytest
from phi3_core.testing import BackendContract


@pytest.mark.runs
class TestDml(BackendContract):
    backend = "dml"
    device = "CPU"

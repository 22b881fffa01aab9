"""Backend of phi3-core for OpenVINO."""

import sys

__version__ = "0.2.0"

# The import of openvino reports to a statistics server and writes into the home folder, unless this module is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

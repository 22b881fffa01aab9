"""Backend of phi3-core for OpenVINO."""

__version__ = "0.2.0"

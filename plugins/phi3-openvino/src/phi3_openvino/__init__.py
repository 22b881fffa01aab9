"""The OpenVINO backend of phi3-core."""

__version__ = "0.2.0"

"""The backend of phi3-core on Intel's NPU Acceleration Library."""

__version__ = "0.2.0"

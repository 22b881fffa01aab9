"""Backend of phi3-core for Intel's NPU Acceleration Library."""

__version__ = "0.2.0"

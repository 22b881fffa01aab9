"""Backend of phi3-core for ONNX Runtime: DirectX 12 GPUs on Windows through DirectML, and CPUs."""

__version__ = "0.2.0"

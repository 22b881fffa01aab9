"""ONNX Runtime backend for phi3-core: DirectX 12 GPUs of Windows through DirectML, and CPUs."""

__version__ = "0.2.0"

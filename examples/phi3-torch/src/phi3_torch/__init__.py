"""A backend for phi3-core on PyTorch and transformers."""

__version__ = "0.1.0"

"""A plugin-based runtime for the Phi-3 family of language models."""

__version__ = "0.1.0"

"""Models on disk: what there is to choose from, where it lies, and whether it is whole."""

DEFAULT = "phi-3-mini-4k-instruct"
"""The model that is meant when none is named."""

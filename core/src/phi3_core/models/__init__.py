"""Models: the catalogue, references to models, and how artifacts and original weights are obtained."""

DEFAULT = "phi-3-mini-4k-instruct"
"""The default model."""

"""Artifact quality: the logits of an artifact over a text, compared with those of the original weights."""

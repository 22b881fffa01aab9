"""What obtaining a model comes to."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from phi3_core.errors import ModelError
from phi3_core.values import Artifact


class Unobtainable(ModelError):  # noqa: N818 - what it says about a device, not a failure of its own
    """The model cannot be had in a form that this device loads. It may be for another."""


@frozen(kw_only=True)
class Obtained:
    """Weights for a backend, and where core finds what it needs for the text."""

    artifact: Artifact
    text: Path
    """The folder with the tokenizer and the chat template."""
    how: str
    """Where the weights came from, in words."""

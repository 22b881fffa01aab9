"""Sequence lengths that an artifact supports, read from its ``config.json`` and manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from phi3_core.errors import ModelError
from phi3_core.paths import read_json
from phi3_core.values import Artifact

from .rope import context_length, longrope_limit


@frozen(kw_only=True)
class PositionLimits:
    """Sequence lengths, in tokens, that change how a model runs."""

    folder: Path
    context_length: int | None
    """Tokens of prompt and answer together; None if unknown."""
    longrope_limit: int | None
    """The longest sequence that uses LongRoPE's short factors; None if there is only one set of factors."""
    sliding_window: int | None
    """Keys that a query attends to; None without a sliding window."""

    def require_context_length(self) -> int:
        """Return the context length.

        Raises:
            ModelError: the context length is unknown.
        """
        if self.context_length is None:
            raise ModelError(f"{self.folder} does not say how long its context is")
        return self.context_length


def read_config(folder: Path) -> Mapping[str, Any]:
    """Return the content of ``config.json`` in a folder; empty if it is missing or not a JSON object."""
    config = read_json(folder / "config.json")
    return config if isinstance(config, dict) else {}


def read_limits(artifact: Artifact) -> PositionLimits:
    """Return the limits of an artifact, from its manifest and ``config.json``."""
    config = read_config(artifact.path)
    stated = artifact.manifest.get("context_length") or context_length(config)
    known = stated if isinstance(stated, int) and stated > 0 else None
    window = config.get("sliding_window")
    return PositionLimits(
        folder=artifact.path,
        context_length=known,
        longrope_limit=longrope_limit(config),
        sliding_window=window if isinstance(window, int) and known is not None and 0 < window < known else None,
    )

"""Which artifacts have answered rightly on which devices: a file for each in the store, with the conditions then."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

from phi3_core import files, paths
from phi3_core.figures.conditions import LoadedArtifact
from phi3_core.figures.values import Conditions
from phi3_core.values import to_plain

FORMAT = 1


def before(loaded: LoadedArtifact) -> Conditions | None:
    """Return the conditions under which an artifact has answered rightly; None if it never did, or that is damaged."""
    content: Any = paths.read_json(_file(loaded))
    try:
        found = Conditions.of(content["conditions"])
    except paths.DAMAGED:
        return None
    return found if content.get("format") == FORMAT and found.content == loaded.artifact.digest else None


def note(loaded: LoadedArtifact) -> None:
    """Record that an artifact has answered rightly, if the store can be written."""
    with contextlib.suppress(OSError):
        paths.write_json(_file(loaded), {"format": FORMAT, "conditions": to_plain(loaded.conditions())})


def forget(loaded: LoadedArtifact) -> None:
    """Forget that an artifact has answered rightly, because it does not, if the store can be written."""
    with contextlib.suppress(OSError):
        files.unlink(_file(loaded))


def can_note() -> bool:
    """Return whether the store can be written."""
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=_folder()):
            return True
    except OSError:
        return False


def _file(loaded: LoadedArtifact) -> Path:
    text = json.dumps([str(loaded.device), loaded.artifact.digest, sorted(loaded.options.items())])
    return paths.keyed_file(_folder(), text)


def _folder() -> Path:
    return paths.home() / "checks"

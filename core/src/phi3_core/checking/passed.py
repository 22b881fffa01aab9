"""Which artifacts have answered rightly on which devices: a file for each in the store, with the conditions then."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from phi3_core import files, paths
from phi3_core.figures.conditions import current
from phi3_core.figures.values import Conditions
from phi3_core.plugin import Backend
from phi3_core.values import Artifact, Device, to_plain

FORMAT = 1


@frozen(kw_only=True)
class Subject:
    """An artifact on a device."""

    backend: Backend
    device: Device
    artifact: Artifact
    options: Mapping[str, str]
    """Options of the engine."""

    @property
    def digest(self) -> str:
        """The digest of the artifact; empty if it is unknown."""
        return str(self.artifact.manifest.get("digest", ""))

    @property
    def file(self) -> Path:
        """The file that says so."""
        text = json.dumps([str(self.device), self.digest, sorted(self.options.items())])
        return paths.keyed_file(_folder(), text)


def before(subject: Subject) -> Conditions | None:
    """Return the conditions under which a subject has answered rightly; None if it never did, or that is damaged."""
    content: Any = paths.read_json(subject.file)
    try:
        found = Conditions.of(content["conditions"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return found if content.get("format") == FORMAT and found.content == subject.digest else None


def now(subject: Subject, then: Conditions) -> Conditions:
    """Return the conditions now, as far as they can be compared with earlier ones."""
    return current(subject.backend, subject.device, content=subject.digest, runtime=then.runtime)


def note(subject: Subject) -> None:
    """Record that a subject has answered rightly, if the store can be written."""
    conditions = current(subject.backend, subject.device, content=subject.digest)
    with contextlib.suppress(OSError):
        paths.write_json(subject.file, {"format": FORMAT, "conditions": to_plain(conditions)})


def forget(subject: Subject) -> None:
    """Forget that a subject has answered rightly, because it does not, if the store can be written."""
    with contextlib.suppress(OSError):
        files.unlink(subject.file)


def can_note() -> bool:
    """Return whether the store can be written."""
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=_folder()):
            return True
    except OSError:
        return False


def _folder() -> Path:
    return paths.home() / "checks"

"""Folders for what is derived from an artifact and can be made again, such as compiled models."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from phi3_core.machine import driver_fingerprint
from phi3_core.paths import home
from phi3_core.values import Artifact, Device


def derived_folder(backend: str, digest: str, *keys: str) -> Path | None:
    """Return a folder for what ``backend`` derives from one artifact, or None if none can be written here.

    Args:
        backend: the backend's name.
        digest: the artifact's; the folder goes when the artifact goes.
        keys: whatever else the content depends on, such as versions.
    """
    words = ["".join(c if c.isalnum() or c in "-_." else "_" for c in key) for key in keys]
    folder = home() / "engines" / digest[:16] / "-".join([backend, *words])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


def artifact_folder(artifact: Artifact, *keys: str) -> Path | None:
    """Return :func:`derived_folder` for an artifact."""
    return derived_folder(artifact.backend, str(artifact.manifest.get("digest", "")), *keys)


def compiled_folder(
    artifact: Artifact, device: Device, runtime: str, *, variant: str = "", discard_older: bool = False
) -> Path | None:
    """Return a folder for an artifact's compiled models, or None if none can be written here.

    Compiled models fail or mislead after an update of the runtime or of the driver, so both are part of the name.

    Args:
        artifact: what is compiled.
        device: what it is compiled for.
        runtime: the runtime's version.
        variant: a word that tells several compiled models of one artifact apart.
        discard_older: whether folders for other versions are deleted. Not if other processes may be using them.
    """
    driver = device.driver or ("" if device.kind == "cpu" else "\n".join(driver_fingerprint()))
    state = hashlib.sha256(f"{runtime}\n{device.name}\n{driver}".encode()).hexdigest()[:12]
    form = f"{device.id}.{variant}" if variant else device.id
    folder = artifact_folder(artifact, form, state)
    if folder is not None and discard_older:
        for other in folder.parent.glob(f"{folder.name.removesuffix(state)}*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
    return folder

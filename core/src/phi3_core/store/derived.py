"""Folders for data that is derived from an artifact and can be made again, such as compiled models."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from phi3_core.files import discard_tree
from phi3_core.machine import driver_fingerprint
from phi3_core.paths import home
from phi3_core.values import Artifact, Device


def derived_folder(backend: str, digest: str, *keys: str) -> Path | None:
    """Return a folder for data that a backend derives from an artifact, or None if it cannot be written.

    Args:
        backend: the name of the backend.
        digest: the artifact's digest; the folder is removed together with the artifact.
        keys: what else the content depends on, such as versions.
    """
    words = ["".join(c if c.isalnum() or c in "-_." else "_" for c in key).rstrip(".") for key in keys]
    folder = home() / "engines" / digest[:16] / "-".join([backend, *words])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


def artifact_folder(artifact: Artifact, *keys: str) -> Path | None:
    """Return a folder for data that is derived from an artifact: see :func:`derived_folder`."""
    return derived_folder(artifact.backend, artifact.digest, *keys)


def compiled_folder(
    artifact: Artifact, device: Device, runtime: str, *, variant: str = "", discard_older: bool = False
) -> Path | None:
    """Return a folder for the compiled models of an artifact, or None if it cannot be written.

    After an update of the runtime or driver, compiled models may fail or give wrong results, so the folder's name
    depends on both.

    Args:
        artifact: the artifact to compile.
        device: the device to compile for.
        runtime: the version of the runtime.
        variant: distinguishes several compiled models of one artifact.
        discard_older: whether to delete the folders for other versions; only if no other process uses them.
    """
    driver = device.driver or ("" if device.kind == "cpu" else "\n".join(driver_fingerprint()))
    state = hashlib.sha256(f"{runtime}\n{device.name}\n{driver}".encode()).hexdigest()[:12]
    form = f"{device.id}.{variant}" if variant else device.id
    folder = artifact_folder(artifact, form, state)
    if folder is not None and discard_older:
        for other in folder.parent.glob(f"{folder.name.removesuffix(state)}*"):
            if other != folder:
                discard_tree(other)
    return folder

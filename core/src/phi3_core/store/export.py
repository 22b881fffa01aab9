"""Copy an artifact to a folder of the user, completely or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from phi3_core import files, paths
from phi3_core.disk import existing_parent, missing_drive, raise_if_full, reason
from phi3_core.errors import StoreError, UsageError

from . import manifest


def check(target: Path) -> None:
    """Check that :func:`copy` can create and fill a folder, before work that takes long.

    Raises:
        UsageError: the folder is not empty, is part of the store, or cannot be written.
    """
    try:
        if drive := missing_drive(target):
            raise UsageError(
                f"{target} cannot be written: {drive} does not exist", hint="name a folder on another disk"
            )
        _check_free(target)
        real, home = target.resolve(), paths.home().resolve()
        if real.is_relative_to(home) or home.is_relative_to(real):
            raise UsageError(f"{target} is part of the store {home}", hint="name a folder outside of it")
        with tempfile.TemporaryDirectory(prefix=".phi3-", dir=existing_parent(target)):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
        why = reason(error) if isinstance(error, OSError) else str(error).lower()
        raise UsageError(f"{target} cannot be written: {why}", hint="name a folder that can be made") from error


def copy(path: Path, target: Path) -> None:
    """Copy a folder or a single file into the folder ``target``, which must be empty or not exist.

    After an error nothing of the copy is left.

    Raises:
        UsageError: ``target`` is not empty.
        DiskFullError: the disk is full.
        StoreError: ``target`` cannot be written.
    """
    _check_free(target)
    there = target.is_dir()
    # An existing folder may be a mount point or a link, so it is filled in place.
    folder = target if there else target.with_name(f".{target.name}.{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=there)
        try:
            _fill(folder, path)
            if not there:
                files.replace_path(folder, target, limit_s=files.PUBLISH_LIMIT_S)
        except BaseException:
            _clear(folder)
            if not there:
                files.discard_tree(folder)
            raise
    except OSError as error:
        hint = f"the model itself is in {path}"
        raise_if_full(error, target, hint=hint)
        raise StoreError(f"{target} cannot be written: {reason(error)}", hint=hint) from error


def _check_free(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists already", hint="name a folder that does not")


def _fill(folder: Path, path: Path) -> None:
    if path.is_file():
        shutil.copyfile(path, folder / path.name)
        return
    files = [file for file in path.rglob("*") if file.is_file()]
    for file in sorted(files, key=lambda file: file.name == manifest.NAME):  # last, as it marks the copy as complete
        place = folder / file.relative_to(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


def _clear(folder: Path) -> None:
    for child in folder.iterdir():
        if child.is_dir():
            files.discard_tree(child)
        else:
            files.unlink(child)

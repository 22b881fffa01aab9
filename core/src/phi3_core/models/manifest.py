"""``phi3.json``: what an artifact is, where it comes from, and the hash of every file in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from phi3_core import __version__, paths
from phi3_core.errors import ModelError

NAME = "phi3.json"
FORMAT = 1


def make(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Hash every file below ``folder``, and write the manifest with ``facts`` beside them.

    ``facts["hashes"]`` are SHA-256 that are known already, by name; they do not become part of the manifest.
    """
    facts = dict(facts)
    known = facts.pop("hashes", {})
    files = {}
    for file in sorted(_files(folder)):
        name = file.relative_to(folder).as_posix()
        files[name] = {"size": file.stat().st_size, "sha256": known.get(name) or sha256(file)}
    listing = "\n".join(f"{name} {entry['sha256']}" for name, entry in files.items())
    manifest = {
        "format": FORMAT,
        **facts,
        "tools": {"phi3-core": __version__, **facts.get("tools", {})},
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "digest": hashlib.sha256(listing.encode()).hexdigest(),
        "files": files,
    }
    paths.write_json(folder / NAME, manifest)
    return manifest


def read(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder, or None if it has none.

    Raises:
        ModelError: there is one, but of no known format.
    """
    if not (folder / NAME).is_file():
        return None
    content = paths.read_json(folder / NAME)
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict) or "digest" not in content:
        raise ModelError(f"{folder / NAME} is damaged")
    if content.get("format") != FORMAT:
        raise ModelError(f"{folder / NAME} has format {content.get('format')}, not {FORMAT}; update phi3-core")
    return content


def check_sizes(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Compare each file's size with the manifest: quick, and finds what was cut short or is missing.

    Raises:
        ModelError: naming the first file that differs.
    """
    for name, entry in manifest["files"].items():
        if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
            raise ModelError(f"{folder / NAME} names {name!r}, which leads out of its folder")
        try:
            size = (folder / name).stat().st_size
        except OSError:
            raise ModelError(f"{folder / name} is missing") from None
        if size != entry["size"]:
            raise ModelError(f"{folder / name} is damaged: {size} bytes, not {entry['size']}")


def damaged(folder: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Read every file and compare its hash with the manifest; what is wrong, by the file's name."""
    wrong = {}
    for name, entry in manifest["files"].items():
        try:
            if sha256(folder / name) != entry["sha256"]:
                wrong[name] = "damaged"
        except FileNotFoundError:
            wrong[name] = "missing"
        except OSError as error:
            wrong[name] = f"unreadable: {(error.strerror or str(error)).lower()}"
    return wrong


def sha256(file: Path) -> str:
    """The SHA-256 of a file's content, as hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file() and file.name != NAME)

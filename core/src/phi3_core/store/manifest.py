"""``phi3.json``, the manifest: facts about an artifact, its origin, and the hash of each of its files."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from phi3_core import __version__, paths
from phi3_core.disk import reason
from phi3_core.errors import ModelError
from phi3_core.values import PRECISIONS

NAME = "phi3.json"
FORMAT = 1

_HINT = "make or copy the folder anew"
_QUALITY = ("tokens", "perplexity_reference", "perplexity", "kl_mean", "kl_p99", "top1_agreement")


def make(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Hash every file below ``folder``, write the manifest, and return it.

    Args:
        folder: the folder that is described.
        facts: further content of the manifest. ``hashes`` has known SHA-256 by file name, which are not computed again.
    """
    facts = dict(facts)
    known = facts.pop("hashes", {})
    files = {}
    for file in sorted(_files(folder)):
        name = file.relative_to(folder).as_posix()
        files[name] = {"size": file.stat().st_size, "sha256": known.get(name) or sha256(file)}
    manifest = {
        "format": FORMAT,
        **facts,
        "tools": {"phi3-core": __version__, **facts.get("tools", {})},
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "digest": _digest(files),
        "files": files,
    }
    paths.write_json(folder / NAME, manifest)
    return manifest


def read(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a folder, or None if it has none.

    Raises:
        ModelError: the manifest has an unknown format or is damaged.
    """
    if not (folder / NAME).is_file():
        return None
    content = paths.read_json(folder / NAME)
    said = content.get("format") if isinstance(content, dict) else None
    if isinstance(said, int) and said != FORMAT:
        raise ModelError(f"{folder / NAME} has format {said}, not {FORMAT}; update phi3-core", hint=_HINT)
    wrong = "it is not JSON" if content is None else _misshapen(content)
    if wrong:
        raise ModelError(f"{folder / NAME} is damaged: {wrong}", hint=_HINT)
    return dict(content)


def check_sizes(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Compare the size of each file with the manifest, which finds missing and truncated files fast.

    Raises:
        ModelError: a file differs; the message names the first one.
    """
    for name, entry in manifest["files"].items():
        try:
            size = (folder / name).stat().st_size
        except OSError:
            raise ModelError(f"{folder / name} is missing") from None
        if size != entry["size"]:
            raise ModelError(f"{folder / name} is damaged: {size} bytes, not {entry['size']}")


def damaged(folder: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Compare the hash of each file with the manifest, and return what is wrong by file name."""
    wrong = {}
    if _digest(manifest["files"]) != manifest["digest"]:
        wrong[NAME] = "damaged"
    for name, entry in manifest["files"].items():
        try:
            if sha256(folder / name) != entry["sha256"]:
                wrong[name] = "damaged"
        except FileNotFoundError:
            wrong[name] = "missing"
        except OSError as error:
            wrong[name] = f"unreadable: {reason(error)}"
    return wrong


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _digest(files: Mapping[str, Any]) -> str:
    listing = "\n".join(f"{name} {entry['sha256']}" for name, entry in files.items())
    return hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()


def _misshapen(content: Any) -> str:
    """Return what is wrong with the content of a manifest, or an empty string. Unknown keys are allowed."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return "it does not say its format"
    # The digest becomes part of the paths of folders that are deleted.
    if not _is_sha256(content.get("digest")):
        return "its digest is invalid"
    if not isinstance(content.get("files"), dict):
        return "it lists no files"
    if "backend" in content and content.get("precision") not in PRECISIONS:
        return f"its precision is {content.get('precision')!r}"
    wrong = (f"its {key} makes no sense" for key, fits in _FACTS.items() if key in content and not fits(content[key]))
    return next(wrong, "") or _misshapen_files(content["files"])


def _misshapen_files(files: Mapping[str, Any]) -> str:
    for name, entry in files.items():
        if name.startswith("/") or {"\\", ":", "\0"} & set(name) or ".." in name.split("/"):
            return f"it names {name!r}, which leads out of its folder"
        if not isinstance(entry, dict) or not _is_count(entry.get("size")) or not _is_sha256(entry.get("sha256")):
            return f"its entry of {name!r} is not a size and a hash"
        try:
            os.fsencode(name)
        except UnicodeEncodeError:
            return f"it names {name!r}, which no file can be called"
    return ""


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_source(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(key, ""), str) for key in ("repository", "folder"))
        and all(isinstance(value.get(key), (str, type(None))) for key in ("model", "revision"))
    )


def _is_quality(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and all(_is_number(value.get(key)) for key in _QUALITY))


_FACTS: dict[str, Callable[[Any], bool]] = {
    "model": _is_text,
    "backend": _is_text,
    "layout": _is_text,
    "created": _is_text,
    "revision": lambda value: value is None or _is_text(value),
    "source": _is_source,
    "recipe": lambda value: value is None or isinstance(value, dict),
    "tools": lambda value: isinstance(value, dict),
    "quality": _is_quality,
    "context_length": lambda value: value is None or _is_count(value),
}
"""The checks of optional keys."""


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file() and file.name != NAME)

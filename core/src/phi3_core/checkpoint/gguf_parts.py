"""GGUF files on the disk: known by their first bytes, alone or in numbered parts beside each other.

``NAME-00001-of-00003.gguf`` names the first of three parts, as llama.cpp's gguf-split writes them. A path is never
resolved here: in the hub's cache it is a link to a file without a suffix, whose other parts lie beside the link.
"""

from __future__ import annotations

import re
from pathlib import Path

from phi3_core.errors import ModelError
from phi3_core.paths import read_json

from .gguf_header import MAGIC

SUFFIX = ".gguf"
LINK = "gguf.json"
"""Names the GGUF file whose configuration and tokenizer a folder has, and which it stands for."""
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)", re.IGNORECASE)
_PREFERRED = ("*.safetensors", "genai_config.json", "openvino_model.xml")
_NO_MODEL = re.compile(r"mmproj|imatrix", re.IGNORECASE)
"""In the names of GGUF files that lie beside a model's and are no models: projectors of images, importance matrices."""


def _begins_as_gguf(path: Path) -> bool:
    """Return whether a file begins as GGUF files do, whatever it is called."""
    try:
        if not path.is_file():  # opening a pipe would block
            return False
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def is_gguf(path: Path) -> bool:
    """Return whether a file has the suffix of GGUF files, or begins as they do."""
    return path.suffix.lower() == SUFFIX or _begins_as_gguf(path)


def stem(path: Path) -> str:
    """Return the name of a file without its suffix and the number of its part."""
    found = _PART.fullmatch(path.name)
    return found["stem"] if found else path.stem


def parts(path: Path) -> list[Path]:
    """Return all parts of the file that ``path`` is a part of, or ``path`` alone.

    They are named as ``path`` is, and need not exist.
    """
    found = _PART.fullmatch(path.name)
    if found is None or not 1 <= int(found["number"]) <= int(found["count"]):
        return [path]
    numbers = range(1, int(found["count"]) + 1)
    return [path.with_name(f"{found['stem']}-{number:05}-of-{found['count']}{found['suffix']}") for number in numbers]


def only_model_in(folder: Path) -> Path | None:
    """Return the only GGUF file in a folder, or the first of its parts.

    None if there is none, or if the folder has weights in another form, which are preferred.

    Raises:
        ModelError: there are several.
    """
    if any(next(folder.glob(pattern), None) for pattern in _PREFERRED):
        return None
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() == SUFFIX and _is_visible_file(file))
    models = [file for file in files if not _NO_MODEL.search(file.name)] or files
    wholes = sorted({parts(file)[0] for file in models})
    if len(wholes) > 1:
        names = ", ".join(file.name for file in wholes[:6]) + (f" and {len(wholes) - 6} more" if wholes[6:] else "")
        raise ModelError(f"{folder} holds {len(wholes)} GGUF models: {names}", hint=f"name one of them: {wholes[0]}")
    return wholes[0] if wholes else None


def _is_visible_file(path: Path) -> bool:
    """Return whether a path is a file that is not hidden, as macOS' ``._NAME`` beside a file on a stick is."""
    return not path.name.startswith(".") and path.is_file()


def linked_file(folder: Path) -> Path | None:
    """Return the GGUF file that a folder stands for, or None if it is a folder with weights of its own."""
    content = read_json(folder / LINK)
    file = content.get("file") if isinstance(content, dict) else None
    return Path(file) if isinstance(file, str) else None

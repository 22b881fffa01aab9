"""Names of files and folders that every system can store, and that mean the same on all of them.

Windows ignores the case of a name, drops dots and spaces at its end, reads ``C:name`` as a path on another drive, and
keeps the names of devices for itself. macOS also ignores how accents are encoded.
"""

from __future__ import annotations

import unicodedata

LONGEST = 200
"""Size limit of a name in bytes: below the 255 of Linux, with room for what is appended."""
_REFUSED = frozenset('<>:"/\\|?*')
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{port}{number}" for port in ("com", "lpt") for number in (*range(10), "¹", "²", "³")}
)


def problem(name: str) -> str:
    """Return why some system cannot store a file or folder with this name; empty if all of them can."""
    refused = "".join(sorted(_REFUSED & set(name)))
    problems = {
        "it is empty, or has dots and spaces only": not name.strip(". "),
        "it has control characters, or bytes that are not text": any(map(_is_no_text, name)),
        f"Windows has no names with {refused}": refused,
        "Windows drops a dot or a space at the end of a name": name[-1:] in {".", " "},
        "Windows keeps such names for devices": is_device(name),
        f"it is longer than {LONGEST} bytes": len(name.encode(errors="replace")) > LONGEST,
    }
    return next((why for why, is_so in problems.items() if is_so), "")


def _is_no_text(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cs"}


def is_device(name: str) -> bool:
    """Return whether Windows takes a name for a device, such as ``nul`` or ``aux.txt``, in every folder."""
    return name.partition(".")[0].partition(":")[0].rstrip(" ").casefold() in _DEVICES


def key(name: str) -> str:
    """Return what is equal for names that are one name on some system."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def storable(name: str, *, longest: int = LONGEST) -> str:
    """Return a name that every system can store: ``name``, with ``_`` for what some system refuses.

    Args:
        name: any text.
        longest: size limit in bytes; the rest of a longer name is cut off.
    """
    letters = (
        "_" if character in _REFUSED or _is_no_text(character) else character
        for character in unicodedata.normalize("NFC", name)
    )
    short = "".join(letters).encode()[:longest].decode(errors="ignore").rstrip(". ")
    return f"_{short}" if problem(short) else short

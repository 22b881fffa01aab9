"""Errors as Windows reports them, on every system."""

from __future__ import annotations

import os


def windows_error(code: int, file: str = "file", other: str | None = None) -> OSError:
    """Return the error for a code of ``winerror.h``, about a file, or about two when renaming."""
    if os.name == "nt":
        return OSError(None, "said by Windows", file, code, other)
    error = PermissionError(13, "said by Windows", file, None, other)
    vars(error)["winerror"] = code
    return error

"""The file with the key that clients state."""

from __future__ import annotations

import logging
import os
import stat

from phi3_core.disk import reason
from phi3_core.errors import UsageError
from phi3_core.paths import absolute

logger = logging.getLogger("phi3_core")

SHORTEST = 16
"""Characters of a key that cannot be guessed."""


def read_key(name: str) -> str:
    """Return the key in a file, which has one line. Warns if other users can read it.

    Raises:
        UsageError: the file cannot be read, or has no key that clients can state.
    """
    path = absolute(name)
    try:
        key = path.read_text(encoding="utf-8-sig").strip()
        mode = path.stat().st_mode if os.name == "posix" else 0
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}", hint="--api-key-file names a file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text", hint="write the key into it as one line") from error
    if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
        words = f"{path} has no API key: one line of at least {SHORTEST} ASCII characters without spaces"
        raise UsageError(words, hint='python -c "import secrets; print(secrets.token_urlsafe())" makes one')
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        logger.warning("other users of this machine can read the API key; chmod 600 %s", path)
    return key

"""An error of a plugin as JSON data for the host."""

from __future__ import annotations

import traceback
from typing import Any

from phi3_core.errors import Phi3Error
from phi3_core.wording import shortened

_LONGEST_MESSAGE = 600
"""Characters of a plugin's error message that are shown."""
_CUT = "… [PHI3_SHOW_OUTPUT=1 shows all of it]"
_LONGEST_TRACEBACK = 1_000_000


def plain_error(error: BaseException) -> dict[str, Any]:
    """Return the kind, the message, the hint and the traceback of an error."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))[-_LONGEST_TRACEBACK:]
    if isinstance(error, SystemExit):
        return {"kind": "SystemExit", "message": f"it tried to exit with {shortened(error.code)}", "traceback": text}
    hint = None
    try:
        if isinstance(error, Phi3Error):
            message, hint = _cut(str(error.message)), error.hint and _cut(str(error.hint))
        else:
            message = _cut(str(error))
    except Exception:  # of a plugin's own class
        message = ""
    if isinstance(error, MemoryError):
        message, hint = message or "there is not enough memory", "choose a smaller model, or --precision int4"
    return {"kind": type(error).__name__, "message": message, "hint": hint, "traceback": text}


def _cut(message: str) -> str:
    """Return a message as one line that fits on a screen. The traceback has all of it, and is shown on request."""
    message = " | ".join(line.strip() for line in message.splitlines() if line.strip())
    if len(message) <= _LONGEST_MESSAGE:
        return message
    return f"{message[: _LONGEST_MESSAGE - len(_CUT)]}{_CUT}"

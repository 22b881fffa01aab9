"""Settings from the environment: time limits, after which a backend counts as hung, and help for its authors."""

from __future__ import annotations

import math
import os

from .errors import UsageError

TIME_LIMITS_S = {"detect": 20.0, "diagnose": 30.0, "load": 900.0, "prefill": 600.0, "token": 120.0}
"""Time limits of backend operations in seconds. The environment variable ``PHI3_<NAME>_LIMIT`` overrides each."""


def time_limit(name: str) -> float:
    """Return a time limit of :data:`TIME_LIMITS_S` in seconds, or its override from the environment.

    Raises:
        UsageError: the environment variable is not a positive number.
    """
    variable = f"PHI3_{name.upper()}_LIMIT"
    text = os.environ.get(variable, "")
    if not text:
        return TIME_LIMITS_S[name]
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise UsageError(f"{variable} is {text!r}, not a number of seconds", hint=f"unset {variable}")
    return seconds


def is_limit_set(name: str) -> bool:
    """Return whether the user has set a time limit of :data:`TIME_LIMITS_S`."""
    return bool(os.environ.get(f"PHI3_{name.upper()}_LIMIT", ""))


DEBUGGED = ("import", "detect", "quantize", "load", "generate", "recognize", "published", "logits", "diagnose")
"""What a worker can wait for a debugger before: the import of the plugin, and each hook."""


def debugged_hook() -> tuple[str, str] | None:
    """Return the backend and the hook that the user wants to debug, from ``PHI3_DEBUG=BACKEND:HOOK``; None if unset.

    Raises:
        UsageError: the environment variable is not of this form.
    """
    text = os.environ.get("PHI3_DEBUG", "")
    if not text:
        return None
    backend, _, hook = text.partition(":")
    if not backend or hook not in DEBUGGED:
        hint = f"PHI3_DEBUG=BACKEND:HOOK, where HOOK is one of {', '.join(DEBUGGED)}"
        raise UsageError(f"PHI3_DEBUG is {text!r}, not a backend and a hook", hint=hint)
    return backend, hook


def shows_output() -> bool:
    """Return whether what backends print is shown at once: ``PHI3_SHOW_OUTPUT`` is neither empty nor 0."""
    return os.environ.get("PHI3_SHOW_OUTPUT", "") not in {"", "0"}

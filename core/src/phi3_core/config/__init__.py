"""Settings: time limits, after which a backend counts as hung, help for the authors of backends, and preferences.

An environment variable comes before the configuration file, and the file before the default.
"""

from __future__ import annotations

from phi3_core.errors import UsageError

from .table import TIME_LIMITS_S as TIME_LIMITS_S
from .values import find, value


def time_limit(name: str) -> float:
    """Return a time limit of :data:`TIME_LIMITS_S` in seconds, or what the user set instead.

    Raises:
        UsageError: what was set is not a positive number.
    """
    seconds: float = value(f"limits.{name}")
    return seconds


def is_limit_set(name: str) -> bool:
    """Return whether the user has set a time limit of :data:`TIME_LIMITS_S`."""
    return find(f"limits.{name}").source != "default"


DEBUGGED = ("import", "detect", "quantize", "load", "generate", "recognize", "published", "logits", "diagnose")
"""What a worker can wait for a debugger before: the import of the plugin, and each hook."""


def debugged_hook() -> tuple[str, str] | None:
    """Return the backend and the hook that the user wants to debug, from ``PHI3_DEBUG=BACKEND:HOOK``; None if unset.

    Raises:
        UsageError: the environment variable is not of this form.
    """
    text = value("PHI3_DEBUG")
    if text is None:
        return None
    backend, _, hook = text.partition(":")
    if not backend or hook not in DEBUGGED:
        hint = f"PHI3_DEBUG=BACKEND:HOOK, where HOOK is one of {', '.join(DEBUGGED)}"
        raise UsageError(f"PHI3_DEBUG is {text!r}, not a backend and a hook", hint=hint)
    return backend, hook


def shows_output() -> bool:
    """Return whether what backends print is shown at once: ``PHI3_SHOW_OUTPUT`` is neither empty nor 0."""
    return bool(value("show_output"))

"""Settings from the environment: time limits, after which a backend counts as hung."""

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

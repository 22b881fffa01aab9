"""What the extra ``testing`` brings. This module needs none of it."""

from __future__ import annotations

import importlib.util

from phi3_core.errors import UsageError

NEEDED = ("pytest", "numpy", "threadpoolctl")
"""Modules that the extra ``testing`` brings."""


def require_pytest() -> None:
    """Check that what the tests need is installed.

    Raises:
        UsageError: it is not.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        words = f"the tests need {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"
        raise UsageError(words, hint='pip install "phi3-core[testing]"')

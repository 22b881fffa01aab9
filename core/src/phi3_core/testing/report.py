"""A plugin of pytest that prints how each test ended as a line of JSON, for ``phi3 plugins check``."""

from __future__ import annotations

import json
import sys

import pytest

from .plugin import BLOCKED, QUIRK, UNAVAILABLE

NAME = __name__
MARK = "phi3-test "
"""The beginning of a line with a result."""
_LONGEST = 2000


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print how a test ended: its call, or a setup that did not let it be called."""
    if report.when == "teardown" and report.passed:
        return
    if report.when == "setup" and report.passed:
        return
    message = _message(report)
    blocked = report.when == "setup" and report.failed and message.startswith(BLOCKED)
    expected = report.skipped and hasattr(report, "wasxfail")
    result = {
        "name": report.nodeid.rpartition("::")[2],
        "outcome": "blocked" if blocked else "quirk" if expected else report.outcome,
        "seconds": round(report.duration, 3),
        "message": message,
        "quirk": next((str(value) for name, value in report.user_properties if name == QUIRK), ""),
        "unavailable": any(name == UNAVAILABLE for name, _ in report.user_properties),
    }
    sys.__stdout__.write(f"\n{MARK}{json.dumps(result)}\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def _message(report: pytest.TestReport) -> str:
    """Return why a test did not pass, in one paragraph."""
    longrepr = report.longrepr
    if longrepr is None:
        return ""
    if isinstance(longrepr, tuple):
        return str(longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(longrepr)
    return str(text).removeprefix("Failed: ").removeprefix("AssertionError: ").split("\nassert ")[0][:_LONGEST]

"""What the tests of ``phi3 doctor`` share."""

from __future__ import annotations

import pytest


@pytest.fixture
def doctor(plugins, run_main, monkeypatch):
    """Run the command; returns (exit code, lines of stdout without indents, stderr)."""
    monkeypatch.chdir(plugins.site)

    def run(*arguments):
        code, out, err = run_main("doctor", *arguments)
        return code, [line.strip() for line in out.splitlines()], err

    return run

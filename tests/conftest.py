"""What spans the distributions is tested in an environment with all of them, installed from their wheels."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from server_process import serving


@pytest.fixture(scope="session")
def backend_name():
    """Whose artifacts the sample's store keeps."""
    return "openvino"


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


@pytest.fixture(scope="module")
def address(sample_home, tmp_path_factory):
    """The address of a server with the model ``sample`` on phi3-openvino's CPU."""
    environment = {**os.environ, "PHI3_HOME": str(sample_home), "PHI3_CONFIG": "none"}
    log = tmp_path_factory.mktemp("served") / "log"
    with serving("--model", "sample", "--device", "openvino:CPU", environment=environment, log=log) as server:
        yield server.url

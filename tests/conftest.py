"""What spans the distributions is tested in an environment with all of them, installed from their wheels."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from pathlib import Path

import pytest


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
def address(sample_home):
    """The address of a server with the model ``sample`` on phi3-openvino's CPU."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    options = ("--model", "sample", "--device", "openvino:CPU", "--port", str(port))
    environment = {**os.environ, "PHI3_HOME": str(sample_home), "PHI3_CONFIG": "none"}
    with subprocess.Popen([sys.executable, "-m", "phi3_core", "serve", *options], env=environment) as process:
        try:
            found = f"http://127.0.0.1:{port}"
            end = time.monotonic() + 120
            while time.monotonic() < end and process.poll() is None:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{found}/v1/models", timeout=60).close()
                    break
                time.sleep(0.1)
            yield found
        finally:
            process.terminate()

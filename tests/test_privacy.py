"""Nobody is called, and nothing is written outside the store, by any command, runtime or library."""

from __future__ import annotations

import json
import sys

import pytest
from tracing import NEEDS_STRACE, trace

pytestmark = NEEDS_STRACE

SAMPLE = ("--model", "sample", "--max-new-tokens", "3", "Hello")
COMMANDS = {
    "--help": ("--help",),
    "devices": ("devices", "--refresh"),
    "plugins": ("plugins",),
    "doctor": ("doctor",),
    "models list": ("models", "list"),
    "run": ("run", *SAMPLE),
    "run --offline": ("run", "--offline", *SAMPLE),
    "chat": ("chat", "--model", "sample"),
    "quantize": ("quantize", "sample", "--device", "openvino:CPU", "--precision", "int8", "--no-check"),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store that is empty at first: the first command that needs the model makes it, under the same eyes."""
    return tmp_path_factory.mktemp("store") / "home"


@pytest.fixture
def traced(command, store, tmp_path, sample_needed):
    """Runs phi3 with folders for the user and for temporary files, which are to be empty afterwards."""
    home, temporary = tmp_path / "user", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()

    def run(*arguments):
        settings = {"PHI3_HOME": str(store), "TMPDIR": str(temporary)}
        seen = trace([command, *arguments], tmp_path / "strace.log", home, **settings)
        # A backend may be installed here without its runtime, which the doctor finds.
        assert seen.code in ({0, 5} if arguments[0] == "doctor" else {0}), seen.output
        return seen, seen.outside(store, temporary), [*home.rglob("*"), *temporary.rglob("*")]

    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(traced, name):
    seen, outside, left = traced(*COMMANDS[name])
    assert (seen.connections, outside, left) == ((), [], [])


def test_every_device(traced, phi3):
    found = json.loads(phi3("devices", "--json").stdout)
    for candidate in found["candidates"]:
        seen, outside, left = traced("run", "--device", candidate["device"], *SAMPLE)
        assert (seen.connections, outside, left) == ((), [], []), candidate["device"]


def test_the_tracer_sees_what_it_is_for(tmp_path):
    """Also what a child process does, and what fails."""
    code = (
        "import pathlib, socket, subprocess, sys\n"
        "pathlib.Path.home().joinpath('left').write_text('x')\n"
        "child = 'import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect((\"192.0.2.1\", 9))'\n"
        "subprocess.run([sys.executable, '-c', child])\n"
    )
    home = tmp_path / "user"
    home.mkdir()
    seen = trace([sys.executable, "-c", code], tmp_path / "strace.log", home)
    assert seen.code == 0, seen.output
    assert "192.0.2.1" in " ".join(seen.connections)
    assert home / "left" in seen.writes

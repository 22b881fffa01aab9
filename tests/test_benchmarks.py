"""The benchmarks: each can be run without arguments, as the session ``benchmarks`` does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
NEEDS = {"serving_load": "locust", "npu_memory": "phi3_npu"}


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("[!_]*.py")))
def test_every_argument_of_a_benchmark_may_be_left_out(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    usage = " ".join(done.stdout.partition("\n\n")[0].removeprefix(f"usage: {name}.py").split())
    while (shorter := re.sub(r"\[[^][]*\]", "", usage)) != usage:
        usage = shorter
    assert usage.split() == []

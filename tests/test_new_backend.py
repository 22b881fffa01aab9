"""What ``phi3 plugins new`` writes is built and installed by pip as it is, and answers with the sample model."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


def run(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_new_backend_is_built_installed_and_answers(sample_needed, tmp_path):
    pytest.importorskip("hatchling", reason="needs hatchling, which builds it")
    folder, site = tmp_path / "phi3-acme", tmp_path / "site"
    run("phi3_core", "plugins", "new", "acme", folder)
    pip = ("pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", site)
    run(*pip, folder)
    environment = {"PYTHONPATH": str(site), "PHI3_HOME": str(tmp_path / "home")}
    listed = json.loads(run("phi3_core", "plugins", "--json", **environment))["plugins"]
    assert ("acme", "phi3-acme", "0.1.0") in {
        (each["plugin"], each["distribution"], each["version"]) for each in listed
    }
    asked = ("--model", "sample", "--device", "acme:0", "What is the capital of France?", "--json")
    answer = json.loads(run("phi3_core", "run", *asked, **environment))
    assert (answer["text"], answer["device"]) == ("The capital of France is Paris.", "acme:0")

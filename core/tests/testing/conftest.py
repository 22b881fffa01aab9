"""Backends for the tests of the kit, and a run of pytest on them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import frozen

GOOD = Path(__file__).with_name("good_backend.py").read_text(encoding="utf-8")


@frozen
class Outcome:
    """How one test ended."""

    backend: str
    name: str
    """With its parameters."""
    when: str
    outcome: str
    message: str


@frozen
class Run:
    """A run of pytest."""

    code: int
    output: str
    outcomes: tuple[Outcome, ...]


# Writes down how each test ended; its own calls only, since a setup that fails has a call of none.
RECORDER = """
import json, pytest

def pytest_collection_modifyitems(items):
    # Of a class that names tests only the parts of the contract that have them.
    items[:] = [item for item in items if not getattr(item.cls, "only", ()) or room(item.cls, item.originalname) in
                {room(item.cls, name) for name in item.cls.only}]

def room(kind, name):
    return next(each for each in kind.__mro__ if name in vars(each))

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        message = str(getattr(report.longrepr, "reprcrash", report.longrepr) or "")
        outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
        with open({log!r}, "a", encoding="utf-8") as file:
            print(json.dumps([*report.nodeid.split("::")[-2:], report.when, outcome, message]), file=file)
"""


@pytest.fixture
def run_kit(plugins, tmp_path) -> Callable[..., Run]:
    """Install backends, and run the contract's tests on them in a pytest of their own."""

    def run(backends: dict[str, str], tests: str, *arguments: str, processes: int = 0) -> Run:
        for name, changes in backends.items():
            plugins.add(name, GOOD.replace('NAME = "good"', f'NAME = "{name}"'), changes=changes)
        folder = tmp_path / "suite"
        folder.mkdir(exist_ok=True)
        log = folder / "log"
        (folder / "recorder.py").write_text(RECORDER.replace("{log!r}", repr(str(log))), encoding="utf-8")
        (folder / "test_suite.py").write_text(tests, encoding="utf-8")
        (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
        parallel = ("-n", str(processes), "--dist", "loadscope") if processes else ("-p", "no:xdist")
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *parallel, *arguments]
        done = subprocess.run(
            [*command, "-p", "recorder", "test_suite.py"],
            cwd=folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=900,
            check=False,
        )
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        outcomes = tuple(Outcome(*json.loads(line)) for line in lines)
        return Run(done.returncode, done.stdout + done.stderr, outcomes)

    return run

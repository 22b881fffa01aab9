"""Backends for the tests of the kit, and a run of pytest on them."""

from __future__ import annotations

import importlib.resources
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from attrs import frozen

GOOD = Path(__file__).with_name("good_backend.py").read_text(encoding="utf-8")
GRAPH = (importlib.resources.files("phi3_core.scaffold") / "templates" / "graph.py.template").read_text("utf-8")


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

@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector, name, obj):
    # Of a class that names tests only the parts of the contract that have them. Making the others takes a second.
    kind = getattr(collector, "cls", None)
    only = getattr(kind, "only", ())
    if only and name.startswith("test_") and room(kind, name) not in {room(kind, each) for each in only}:
        return []

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
# Backends that quantize alike have one artifact of each model.
SHARING = """
import shutil

def pytest_collection_finish():
    from phi3_core.testing.subject import Subject

    made, quantize = {}, Subject.quantize

    def quantize_once(self, source, offer, recipe, output):
        key = (source.model, recipe.precision)
        if source.path.name != source.model or recipe.extra or recipe.group_size:  # damaged, or to be refused
            return quantize(self, source, offer, recipe, output)
        if key not in made:
            made[key] = output, quantize(self, source, offer, recipe, output)
        else:
            shutil.copytree(made[key][0], output, dirs_exist_ok=True)
        return made[key][1]

    Subject.quantize = quantize_once
"""


def install(plugins, name: str, changes: str = "") -> None:
    """Install the good backend under a name. ``changes`` goes below its source."""
    (plugins.site / "numpy_graph.py").write_text(GRAPH, encoding="utf-8")
    plugins.add(name, GOOD.replace('NAME = "good"', f'NAME = "{name}"'), changes=changes)


@pytest.fixture
def add(plugins) -> Callable[..., None]:
    """Install the good backend for this process, and those that it starts."""
    return partial(install, plugins)


@pytest.fixture(scope="session")
def run_kit_in(plugins_at) -> Callable[..., Run]:
    """Install backends into a folder, and run the contract's tests on them in a pytest of their own.

    Args:
        measured: not where it would reach no code that others have not reached: tracing costs a third more.
        alike: whether all backends quantize as the good one does.
    """

    def run(
        folder: Path,
        backends: dict[str, str],
        tests: str,
        *arguments: str,
        measured: bool = True,
        alike: bool = False,
    ) -> Run:
        site, suite = folder / "site", folder / "suite"
        site.mkdir()
        suite.mkdir()
        for name, changes in backends.items():
            install(plugins_at(site), name, changes)
        log = suite / "log"
        recorder = RECORDER.replace("{log!r}", repr(str(log))) + (SHARING if alike else "")
        (suite / "recorder.py").write_text(recorder, encoding="utf-8")
        (suite / "test_suite.py").write_text(tests, encoding="utf-8")
        (suite / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(site), "PHI3_HOME": str(folder / "home")}
        environment["OPENBLAS_NUM_THREADS"] = "1"  # more of them would only wait for each other
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-q", *arguments]
        done = subprocess.run(
            [*command, "-p", "recorder", "test_suite.py"],
            cwd=suite,
            env={name: value for name, value in environment.items() if measured or not name.startswith("COVERAGE_")},
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


@pytest.fixture
def run_kit(run_kit_in, tmp_path) -> Callable[..., Run]:
    """The same in a folder of the test."""
    return partial(run_kit_in, tmp_path)

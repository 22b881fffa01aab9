"""Run the contract's tests on an installed backend, in a pytest of their own that knows no other settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from attrs import frozen

from phi3_core.errors import BackendError
from phi3_core.interpreter import module_command

from . import plugin, report
from .needs import require_pytest

SUITE = "suite.py"


@frozen(kw_only=True)
class Result:
    """How one test ended."""

    name: str
    """The test, with its parameters in brackets."""
    outcome: str
    """``passed``, ``failed``, ``skipped``, ``quirk`` if it failed as expected, ``blocked`` if what it needs failed."""
    seconds: float
    message: str
    """Why it did not pass; empty if it did."""
    quirk: str
    """Why the backend does not pass it, or has another test in its place; empty if the contract's own is to pass."""
    unavailable: bool
    """Whether it was skipped because no engine can be loaded: there is no usable device, precision or ``quantize``."""


def run(
    backend: str,
    *,
    device: str | None = None,
    precision: str | None = None,
    junit: Path | None = None,
    each: Callable[[Result], object] | None = None,
) -> list[Result]:
    """Run the tests, and return how each ended.

    Args:
        backend: the name of the backend.
        device: the id of a device; by default the first that core may choose.
        precision: the only precision to test; by default all that the device offers.
        junit: a file for a report in JUnit's form.
        each: called with each result as soon as there is one.

    Raises:
        UsageError: pytest is not installed.
        BackendError: pytest ended before it had run the tests.
    """
    require_pytest()
    with tempfile.TemporaryDirectory(prefix="phi3-check-") as folder:
        place = Path(folder)
        (place / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        command = [
            *module_command("pytest", str(Path(__file__).with_name(SUITE)), "-q", "-c", str(place / "pytest.ini")),
            *("--rootdir", folder, "--basetemp", str(place / "temporary"), "--noconftest", "-p", "no:cacheprovider"),
            *("-p", plugin.NAME, "-p", report.NAME, *(("--junitxml", str(junit.absolute())) if junit else ())),
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        given = {"BACKEND": backend, "DEVICE": device or "", "PRECISION": precision or ""}
        environment |= {f"PHI3_CHECK_{name}": value for name, value in given.items()}
        output = place / "output"
        with (
            output.open("wb") as file,
            subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                encoding="utf-8",
            ) as process,
        ):
            assert process.stdout is not None
            others: list[str] = []
            try:
                results = list(_results(process.stdout, each, others))
            except BaseException:
                process.terminate()
                raise
        if process.returncode not in {0, 1} or not results:
            errors = [line[1:].strip() for line in others if line.startswith("E ")]  # of what could not be imported
            said = errors or output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise BackendError(f"the tests could not be run: {said[-1] if said else f'pytest: {process.returncode}'}")
    return results


def _results(lines: Iterable[str], each: Callable[[Result], object] | None, others: list[str]) -> Iterator[Result]:
    """Yield the results among what pytest prints. ``others`` gets all other lines."""
    for line in lines:
        if line.startswith(report.MARK):
            result = Result(**json.loads(line[len(report.MARK) :]))
            if each is not None:
                each(result)
            yield result
        else:
            others.append(line)

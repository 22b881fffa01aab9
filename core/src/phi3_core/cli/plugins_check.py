"""``phi3 plugins check NAME``: run the contract's tests on an installed backend."""

from __future__ import annotations

import argparse

from . import options

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import Any

    from phi3_core.testing.check import Result


def add(verbs: Any) -> None:
    """Add the command to the parser of ``phi3 plugins``."""
    command = verbs.add_parser(
        "check",
        help="run the tests that every backend passes",
        description="Run the contract's tests on an installed backend. They need phi3-core[testing].",
        epilog="exit codes: 0 all passed, 2 pytest is not installed, 3 no engine can be loaded here, "
        "such as without a usable device, 5 a test failed",
    )
    command.add_argument("name", metavar="NAME", help="the backend")
    command.add_argument("-d", "--device", metavar="ID", help="the device [the first that would be chosen]")
    command.add_argument("-p", "--precision", choices=("fp16", "int8", "int4"), help="only this precision")
    command.add_argument("--junit", metavar="FILE", help="also write a report in JUnit's form")
    options.finish(command, call, json="print every result as JSON")


def call(given: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from pathlib import Path

    from phi3_core.testing.needs import require_pytest

    require_pytest()

    from phi3_core.errors import NoDeviceError
    from phi3_core.testing import check

    from . import output

    backend = _backend(given.name)
    device = given.device.rpartition(":")[2] if given.device else None
    progress = output.Progress()
    done: list[Result] = []

    def show(result: Result) -> None:
        done.append(result)
        progress(f"testing {backend.name}: {len(done)}, {result.name}")

    junit = Path(given.junit) if given.junit else None
    results = check.run(backend.name, device=device, precision=given.precision, junit=junit, each=show)
    progress.clear()
    counts = {kind: sum(result.outcome == kind for result in results) for kind in _OUTCOMES}
    if given.json:
        head = {"backend": backend.name, "distribution": backend.distribution, "version": backend.version}
        output.print_json({**head, "device": device, **counts, "tests": results})
    else:
        _print(results, counts)
    if counts["failed"] or counts["blocked"]:
        return 5
    reason = next((result.message for result in results if result.unavailable), None)
    if reason is not None:
        raise NoDeviceError(reason, hint="phi3 devices")
    return 0


_OUTCOMES = ("passed", "failed", "blocked", "quirk", "skipped")


def _backend(name: str) -> Any:
    from phi3_core.errors import UsageError
    from phi3_core.plugin import installed

    backends, broken = installed()
    found = next((backend for backend in backends if backend.name.casefold() == name.casefold()), None)
    if found is not None:
        return found
    reason = next((f": {each.error}" for each in broken if each.plugin == name), "")
    names = ", ".join(backend.name for backend in backends) or "none"
    raise UsageError(f"there is no backend {name!r}{reason}", hint=f"phi3 plugins lists what is installed: {names}")


def _print(results: list[Result], counts: dict[str, int]) -> None:
    """Print what did not pass or is a quirk, each test with its reason, and then how many did."""
    from . import output

    rows = [
        (kind, result.name, ((kind == "quirk" and result.quirk) or result.message).partition("\n")[0])
        for kind in ("failed", "blocked", "quirk", "skipped")
        for result in results
        if kind == (result.outcome if result.outcome != "passed" else result.quirk and "quirk")
    ]
    if rows:
        output.print_table(("", "test", "reason"), rows)
    seconds = sum(result.seconds for result in results)
    print(f"{', '.join(f'{count} {kind}' for kind, count in counts.items() if count)} in {seconds:.0f} s")

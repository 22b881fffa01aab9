"""``phi3 doctor``: diagnostics for troubleshooting, and an anonymous report to share."""

from __future__ import annotations

import argparse

from phi3_core.units import format_bytes

from . import options

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import Any

    from phi3_core.diagnostics import Diagnostics


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "doctor",
        help="drivers, versions, conflicts; --report writes one file",
        description="Check drivers, versions and devices, and suggest fixes.",
    )
    command.add_argument(
        "--generate",
        metavar="MODEL",
        nargs="?",
        const="sample",
        help="also generate a short answer on every device; with the model sample unless another is named",
    )
    options.add_offline(command)
    command.add_argument("--report", metavar="FILE", help="write all of it to one file, without names and home folders")
    options.finish(command, call, json="print the report")


def call(given: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from phi3_core import diagnostics, paths
    from phi3_core.disk import raise_if_full, reason
    from phi3_core.errors import UsageError

    from . import output

    report = paths.absolute(given.report) if given.report else None
    progress = output.Progress()
    found = diagnostics.run_diagnostics(progress, generate=given.generate, offline=given.offline)
    progress.clear()
    document = diagnostics.report(found)
    if given.json:
        output.print_json(document)
    else:
        _print(found)
    if report:
        hint = "--report FILE names another place"
        try:
            paths.write_json(report, document)
        except ValueError as error:  # such as a null character
            raise UsageError(f"{given.report!r} cannot be the name of a file: {error}", hint=hint) from error
        except OSError as error:
            raise_if_full(error, report, hint=hint)
            raise UsageError(f"the report cannot be written: {reason(error)}: {given.report}", hint=hint) from error
        output.logger.info("the report is in %s", given.report)
    return 0


def _print(found: Diagnostics) -> None:

    machine = found.survey.machine
    print(f"{found.system}, {machine.architecture}, {format_bytes(machine.memory_bytes)} of memory")
    print(f"{found.python}; " + ", ".join(f"{name} {version}" for name, version in found.packages.items()))
    for name, value in found.settings.items():
        print(f"{name}={value}")
    for offer in found.survey.offers:
        device = offer.device
        driver = f", driver {device.driver}" if device.driver else ""
        asked = "" if offer.automatic else "; only when named"
        print(f"usable: {device} ({device.kind}): {device.name}{driver}; {' '.join(offer.precisions)}{asked}")
    for backend, refusal in found.survey.refusals:
        print(f"not usable: {backend}: {refusal.reason}{_remedy(refusal.remedy)}")
    for broken in (*found.survey.broken, *found.broken):
        print(f"broken: {broken.plugin} ({broken.distribution}): {broken.error}")
    if not found.survey.answers and not found.survey.broken:
        print("no backend is installed: pip install phi3-openvino")
    told = {(backend, refusal.reason) for backend, refusal in found.survey.refusals}
    for one in found.diagnoses:
        if (one.backend, one.finding.message) in told:
            continue
        print(f"{one.finding.severity}: {one.backend}: {one.finding.message}{_remedy(one.finding.remedy)}")
    for trial in found.trials:
        print(f"generated: {trial.device}: {_trial(trial)}")


def _remedy(text: str) -> str:
    return f" -> {text}" if text else ""


def _trial(trial: Any) -> str:
    if trial.outcome != "answered":
        return str(trial.outcome)
    figures = [f"ready after {trial.load_s:.1f} s"]
    if trial.time_to_first_token_s is not None:
        figures.append(f"first token {trial.time_to_first_token_s:.2f} s")
    if trial.decode_tokens_per_s is not None:
        figures.append(f"{trial.decode_tokens_per_s:.1f} tokens/s")
    return f"{' '.join(trial.text.split())!r} ({', '.join(figures)})"

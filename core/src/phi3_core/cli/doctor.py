"""``phi3 doctor``: diagnostics for troubleshooting, a real generation on each device, and a report to share."""

from __future__ import annotations

import argparse

from . import options

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "doctor",
        help="drivers, versions, conflicts, a real generation per device; --report writes one file",
        description="Check drivers, versions and permissions, generate on every device, and suggest fixes.",
        epilog="exit codes: 0 all is well, 3 nothing works, 4 no weights to try with, 5 something works and something "
        "does not",
    )
    command.add_argument(
        "-m",
        "--model",
        help="the model to generate with, which is obtained if necessary "
        "[the weights in the store of the usual model; sample for devices without]",
    )
    command.add_argument("-d", "--device", default="auto", help="generate only on these devices, as for phi3 run")
    command.add_argument(
        "--no-generate", dest="generate", action="store_false", help="only look, and load no model on any device"
    )
    options.add_offline(command)
    command.add_argument(
        "--report", metavar="FILE", help="write all of it to one text file, without names, folders and secrets of yours"
    )
    options.finish(command, call, json="print everything as JSON, without names, folders and secrets of yours")


def call(given: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from phi3_core import paths
    from phi3_core.doctor import diagnostics, privacy, report, text

    from . import output

    file = paths.absolute(given.report) if given.report else None
    progress = output.Progress()
    try:
        found = diagnostics.run_diagnostics(
            progress, generate=given.generate, model=given.model, device=given.device, offline=given.offline
        )
    finally:
        progress.clear()
    if given.json:
        output.print_json(report.document(found, privacy.this_identity()))
    else:
        for line in text.lines(found):
            output.print_line(line)
    if file is not None:
        _write(file, report.report(found, privacy.this_identity()), given.report)
    return found.exit_code


def _write(file: Path, content: str, given: str) -> None:
    from phi3_core.disk import raise_if_full, reason
    from phi3_core.errors import UsageError

    from . import output

    hint = "--report FILE names another place"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Names of files that are not UTF-8 have characters that cannot be encoded: they are escaped.
        file.write_text(content, encoding="utf-8", errors="backslashreplace", newline="\n")
    except ValueError as error:  # such as a null character
        raise UsageError(f"{given!r} cannot be the name of a file: {error}", hint=hint) from error
    except OSError as error:
        raise_if_full(error, file, hint=hint)
        raise UsageError(f"the report cannot be written: {reason(error)}: {given}", hint=hint) from error
    output.logger.info("the report is in %s", given)

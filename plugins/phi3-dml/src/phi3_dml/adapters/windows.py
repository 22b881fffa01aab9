"""Adapters on Windows, read in a child process because drivers may crash or hang.

When a step ends or blocks the child, the child is restarted without that step. A faulty driver therefore affects only
its own adapter, and the failure is reported.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from phi3_core.backend import module_command

from .records import Reading, Trial
from .windows_probe import MARK

STEP_LIMIT_S = 6.0
"""Time limit of one child in seconds; usually it takes some tenths of a second."""
LIMIT_S = 14.0
"""Time limit of all children in seconds; the survey's limit is 20 s."""
TIMED_OUT = "did not answer within"
"""How the failure of a step that hangs begins."""
PROBE = "phi3_dml.adapters.windows_probe"
"""The module that the children run."""


def read(command: Sequence[str] = (), *, step_limit_s: float = STEP_LIMIT_S, limit_s: float = LIMIT_S) -> Reading:
    """Return all adapters, as reported by Windows.

    Args:
        command: the command that runs :data:`PROBE`.
        step_limit_s: time limit of one child in seconds.
        limit_s: time limit of all children in seconds.
    """
    answers, failures = ask(command or module_command(PROBE), step_limit_s, limit_s)
    trials = [answer for step, answer in answers.items() if step.startswith("trial ")]
    trials += [
        Trial(position=int(step.removeprefix("trial ")), failure=why)
        for step, why in failures.items()
        if step.startswith("trial ")
    ]
    return Reading(
        adapters=answers.get("adapters", ()),
        core=answers.get("core", ()),
        trials=trials,
        remote_session=answers.get("session", False),
        build=build(),
        failures=tuple(f"{step}: {why}" for step, why in failures.items() if not step.startswith("trial ")),
    )


def build() -> int:
    """Return the build number of Windows; 0 on other systems."""
    if sys.platform == "win32":
        return sys.getwindowsversion().build
    return 0


def ask(command: Sequence[str], step_limit_s: float, limit_s: float) -> tuple[dict[str, Any], dict[str, str]]:
    """Run the child process until all steps have succeeded or failed, or the time is up.

    Args:
        command: the command that runs :mod:`phi3_dml.adapters.windows_probe`, or another probe made like it.
        step_limit_s: time limit of one child in seconds.
        limit_s: time limit of all children in seconds.

    Returns:
        The results of successful steps and the reasons of failed ones, by step.
    """
    answers: dict[str, Any] = {}
    failures: dict[str, str] = {}
    deadline = time.monotonic() + limit_s
    while (left := deadline - time.monotonic()) > 0:
        # The adapters are listed every time, because later steps depend on them.
        passed_over = [step for step in (*answers, *failures) if step != "adapters" or step in failures]
        lines, ended = _run([*command, *passed_over], min(step_limit_s, left))
        begun = ""
        for line in lines:
            begun = line["step"]
            if "found" in line:
                answers[begun], begun = line["found"], ""
            elif "failure" in line:
                failures[begun], begun = line["failure"], ""
        if not ended:
            break
        if not begun:  # it ended between two steps, so a restart would not help
            failures.setdefault("the query", ended)
            break
        failures[begun] = ended
        answers.pop(begun, None)
    return answers, failures


def _run(command: Sequence[str], limit_s: float) -> tuple[list[Mapping[str, Any]], str]:
    """Run a child and return its messages and, if it crashed or timed out, how it ended."""
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NO_WINDOW
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, creationflags=flags
    ) as process:
        ended = ""
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            ended = f"{TIMED_OUT} {limit_s:.0f} s"
    if not ended and process.returncode:
        ended = f"crashed ({_code(process.returncode)})"
    return list(_lines(output.decode("utf-8", "replace"))), ended


def _lines(text: str) -> Iterator[Mapping[str, Any]]:
    for line in text.splitlines():
        # The last line may be incomplete if the process was ended.
        with contextlib.suppress(ValueError):
            if line.startswith(MARK):
                yield json.loads(line.removeprefix(MARK))


def _code(code: int) -> str:
    return f"0x{code & 0xFFFFFFFF:08X}" if code >= 2**16 else str(code)

"""What Windows says of its adapters, read in a child process that drivers may crash.

A step that ends the child, or that it does not come back from, is left out when it is started again. So one bad driver
costs what only it could tell, and a person reads which one it was.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .records import Reading, Trial
from .windows_probe import MARK

STEP_LIMIT_S = 6.0
"""How long one child may take in all; it needs some tenths of a second."""
LIMIT_S = 14.0
"""How long all of them may take: the survey waits 20 s."""
# -P keeps the current folder out of the way; Python 3.10 does not have it.
COMMAND = (sys.executable, *(("-P",) if sys.version_info >= (3, 11) else ()), "-m", "phi3_dml.adapters.windows_probe")


def read(command: Sequence[str] = COMMAND, *, step_limit_s: float = STEP_LIMIT_S, limit_s: float = LIMIT_S) -> Reading:
    """Ask Windows."""
    answers, failures = ask(command, step_limit_s, limit_s)
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
    """The build of Windows; 0 elsewhere."""
    if sys.platform == "win32":
        return sys.getwindowsversion().build
    return 0


def ask(command: Sequence[str], step_limit_s: float, limit_s: float) -> tuple[dict[str, Any], dict[str, str]]:
    """What each step found, and why others found nothing."""
    answers: dict[str, Any] = {}
    failures: dict[str, str] = {}
    deadline = time.monotonic() + limit_s
    while (left := deadline - time.monotonic()) > 0:
        # The adapters are looked at every time: what comes after them depends on them.
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
        if not begun:  # it came to its end between two steps, which another try would not change
            failures.setdefault("the query", ended)
            break
        failures[begun] = ended
        answers.pop(begun, None)
    return answers, failures


def _run(command: Sequence[str], limit_s: float) -> tuple[list[Mapping[str, Any]], str]:
    """The lines that a child said, and how it ended, if not well."""
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
            ended = f"did not answer within {limit_s:.0f} s"
    if not ended and process.returncode:
        ended = f"crashed ({_code(process.returncode)})"
    return list(_lines(output.decode("utf-8", "replace"))), ended


def _lines(text: str) -> Iterator[Mapping[str, Any]]:
    for line in text.splitlines():
        # The last line may be cut off by the end of the process.
        with contextlib.suppress(ValueError):
            if line.startswith(MARK):
                yield json.loads(line.removeprefix(MARK))


def _code(code: int) -> str:
    return f"0x{code & 0xFFFFFFFF:08X}" if code >= 2**16 else str(code)

"""What the installed ONNX Runtime GenAI and Windows ML report about themselves, asked in a child process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import field, frozen
from phi3_core.backend import module_command, values_of

from .adapters import windows
from .catalogue import Entry
from .runtime_probe import CATALOGUE, RUNTIME

PROBE = "phi3_dml.runtime_probe"
"""The module that the child runs."""
STEP_LIMIT_S = 5.0
"""Time limit of the child in seconds; usually it takes some tenths of a second."""


def _entries(given: Any) -> Any:
    return values_of(Entry, given)


@frozen(kw_only=True)
class Reported:
    """What a runtime reports, as far as it was asked."""

    package: str = ""
    """The distribution that its module was built for; empty if unknown."""
    version: str = ""
    directml: bool | None = None
    """Whether it was built with DirectML; None if unknown."""
    failure: str = ""
    """Why it cannot be imported."""
    catalogue: tuple[Entry, ...] = field(default=(), converter=_entries)
    """The execution providers that Windows ML offers for this machine."""
    catalogue_failure: str = ""
    """Why the catalogue cannot be read."""


def read(*, catalogue: bool = False, command: Sequence[str] = (), limit_s: float = STEP_LIMIT_S) -> Reported:
    """Ask the installed runtime in a child process.

    Args:
        catalogue: also list Windows ML's execution providers, which downloads nothing.
        command: the command that runs :data:`PROBE`.
        limit_s: time limit in seconds of each of the two.
    """
    steps: Iterable[str] = () if catalogue else (CATALOGUE,)
    answers, failures = windows.ask([*(command or module_command(PROBE)), *steps], limit_s, 2 * limit_s)
    failure = failures.get(RUNTIME, failures.get("the query", ""))
    return Reported(
        **answers.get(RUNTIME, {}),
        # A machine that is busy may be slow to load the libraries, so a time-out tells nothing about them.
        failure="" if failure.startswith(windows.TIMED_OUT) else failure,
        catalogue=answers.get(CATALOGUE, ()),
        catalogue_failure=failures.get(CATALOGUE, ""),
    )

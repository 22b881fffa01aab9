"""Compare a report with an earlier one: ratios, and whether they are more than noise. Pure."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from phi3_core.errors import UsageError
from phi3_core.paths import DAMAGED
from phi3_core.units import format_bytes

from .results import Report, Spread, TaskResult

LEAST = 1.05
"""The ratio of medians below which a difference is taken for noise in any case."""
_MOST_BYTES = 2**63
_HINT = "--compare takes what phi3 bench --json printed"


@frozen(kw_only=True)
class Change:
    """One figure, before and now."""

    device: str
    precision: str
    task: str
    at_once: int
    figure: str
    """``first_token_s`` or ``decode_tokens_per_s``."""
    before: float
    now: float
    ratio: float
    """Over 1 is faster than before."""
    verdict: str
    """``faster``, ``slower``, ``noise``, or ``unclear`` if there was a single run before or now."""


def read_report(content: Any, name: str) -> Report:
    """Return the report that a JSON document is.

    Raises:
        UsageError: it is not one.
    """
    if not isinstance(content, dict) or "results" not in content:
        raise UsageError(f"{name} is not a report of phi3 bench", hint=_HINT)
    if content.get("format") != 1:
        raise UsageError(f"{name} has the format {content.get('format')}, not 1", hint="update phi3-core")
    try:
        known = ("format", "phi3_core", "model", "time", "machine", "repeats", "results", "interrupted")
        return Report(**{key: content[key] for key in known})
    except DAMAGED as error:
        raise UsageError(f"{name} is not a whole report of phi3 bench: {_said(error)}", hint=_HINT) from error


def compare(before: Report, now: Report) -> tuple[Change, ...]:
    """Return the changes of what both reports measured alike, in the order of ``now``.

    Raises:
        UsageError: they are of two models.
    """
    if before.model != now.model:
        raise UsageError(f"the earlier report is of {before.model}, not of {now.model}", hint="measure the same model")
    earlier = {
        (result.device, result.precision, _key(task)): task for result in before.results for task in result.tasks
    }
    found = []
    for result in now.results:
        for task in result.tasks:
            old = earlier.get((result.device, result.precision, _key(task)))
            if old is None:
                continue
            for figure in ("first_token_s", "decode_tokens_per_s"):
                was, is_now = getattr(old, figure), getattr(task, figure)
                ratio = _ratio(was, is_now, less_is_faster=figure == "first_token_s")
                found.append(
                    Change(
                        device=result.device,
                        precision=result.precision,
                        task=task.task,
                        at_once=task.at_once,
                        figure=figure,
                        before=was.median,
                        now=is_now.median,
                        ratio=ratio,
                        verdict=_verdict(was, is_now, ratio),
                    )
                )
    return tuple(found)


def differences(before: Report, now: Report) -> tuple[str, ...]:
    """Return what else differs between two reports, so that changes may not come from what is compared."""
    found = [_differs(f"the machine's {name}", before.machine.get(name), value) for name, value in now.machine.items()]
    found.append(_differs("phi3-core", before.phi3_core, now.phi3_core))
    earlier = {result.device: result for result in before.results}
    for result in now.results:
        old = earlier.get(result.device)
        # A device that could not be loaded has no version of its backend.
        names = () if old is None or not (old.backend and result.backend) else ("name", "backend", "driver")
        found += [_differs(f"{result.device}'s {name}", getattr(old, name), getattr(result, name)) for name in names]
    return tuple(dict.fromkeys(filter(None, found)))


def _differs(what: str, before: Any, now: Any) -> str:
    was, is_now = _shown(before), _shown(now)
    return "" if was == is_now else f"{what.replace('_bytes', '')} was {was}, and is {is_now}"


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_BYTES:
        return str(value)
    return format_bytes(value)  # as exact as it is told: what a system reserves of its memory varies


def _said(error: Exception) -> str:
    """Return an error's message in one line, without the values that attrs adds to it."""
    return " ".join(str(error.args[0] if error.args else error).split())


def _key(task: TaskResult) -> tuple[str, int, int, int]:
    return task.task, task.prompt_tokens, task.new_tokens, task.at_once


def _ratio(before: Spread, now: Spread, *, less_is_faster: bool) -> float:
    most, least = (before.median, now.median) if less_is_faster else (now.median, before.median)
    return most / least if least else 1.0


def _verdict(before: Spread, now: Spread, ratio: float) -> str:
    """Return whether the medians differ, and no run of one is within the runs of the other."""
    if min(before.runs, now.runs) < 2:
        return "unclear"
    apart = now.least > before.most or now.most < before.least
    if not apart or 1 / LEAST < ratio < LEAST:
        return "noise"
    return "faster" if ratio > 1 else "slower"

"""``phi3 devices``: the usable devices by rank, with reasons; unavailable ones, and broken backends."""

from __future__ import annotations

import argparse

from phi3_core.models import DEFAULT
from phi3_core.units import format_bytes

from . import configured, options
from .entries import date

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import Any

    from phi3_core.hardware import Hardware
    from phi3_core.selection import Candidate
    from phi3_core.store.store import Store
    from phi3_core.surveys import Survey


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "devices",
        help="usable devices by rank, with reasons; unavailable ones, with remedies",
        description="Ask every installed backend which devices it can use on this machine.",
    )
    options.add_policy(command)
    command.add_argument("-m", "--model", help=f"the model whose figures rank [{DEFAULT}]")
    configured.mark(command, "model")
    command.add_argument(
        "--clear-failures", action="store_true", help="forget which devices failed, so that they are not put last"
    )
    options.add_refresh(command)
    options.finish(command, call, json="print everything as JSON", quiet=False)


def call(given: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from phi3_core import selection
    from phi3_core.models.known import known_of
    from phi3_core.models.ref import look_up
    from phi3_core.store.store import Store
    from phi3_core.surveys import survey

    from . import output

    store = Store()
    ref = look_up(given.model, store)
    if given.clear_failures:
        _clear_failures(store)
    found = survey(refresh=given.refresh)
    policy, words = selection.effective_policy(given.policy, on_battery=found.machine.on_battery)
    rows = selection.overview(found, given.policy, known_of(found, ref, store))
    if given.json:
        output.print_json(_document(found, policy, rows))
    else:
        _print(found, words, rows)
    return 0 if any(row.rank for row in rows) else 3


def _clear_failures(store: Store) -> None:
    from phi3_core.figures import failures
    from phi3_core.store.locking import store_errors

    from . import output

    with store_errors(store.root):
        count = failures.clear_all()
    output.logger.warning("%d failure%s forgotten", count, "" if count == 1 else "s")


def _document(found: Survey, policy: str, rows: Any) -> dict[str, Any]:
    return {
        "machine": found.machine,
        "policy": policy,
        "candidates": [
            {
                "device": str(row.device),
                "backend": row.device.backend,
                "kind": row.device.kind,
                "name": row.device.name,
                "precisions": row.precisions,
                "memory_bytes": row.device.memory_bytes,
                "driver": row.device.driver,
                "rank": row.rank,
                "why": row.why,
                "notes": row.notes,
                "figures": _figures(row),
                "failure": row.failure and {"reason": row.failure.reason, "time": date(row.failure.time)},
            }
            for row in rows
        ],
        "refusals": [
            {"backend": backend, "reason": refusal.reason, "remedy": refusal.remedy}
            for backend, refusal in found.refusals
        ],
        "broken": found.broken,
        "without_backend": [
            {"kind": each.kind, "name": each.name, "remedy": remedy} for each, remedy in _without_backend(found)
        ],
    }


def _without_backend(found: Survey) -> list[tuple[Hardware, str]]:
    """Return the GPUs and NPUs that no installed backend is for, and what installs one."""
    from phi3_core import hardware

    installed = {answer.backend.distribution for answer in found.answers}
    installed |= {broken.distribution for broken in found.broken}
    kinds = {offer.device.kind for offer in found.offers}
    there = hardware.present()
    return list(hardware.without_backend(there, found.machine.os, installed=installed, kinds=kinds))


def _figures(row: Candidate) -> dict[str, Any] | None:
    from phi3_core.values import to_plain

    figures = row.figures
    if figures is None:
        return None
    return {
        **to_plain(figures),
        "measured": date(figures.measured),
        "counted": figures.counted,
        "task_s": figures.task_s,
    }


def _print(found: Survey, words: str, rows: Any) -> None:
    from . import output

    machine = found.machine
    print(f"{machine.os} on {machine.architecture}, {format_bytes(machine.memory_bytes)} of memory; {words}")
    if rows:
        output.print_table(
            ("", "device", "kind", "name", "precisions", "memory", "why"),
            [
                (
                    row.rank or "-",
                    row.device,
                    row.device.kind,
                    row.device.name,
                    " ".join(row.precisions),
                    format_bytes(row.device.memory_bytes),
                    f"{row.why}; {row.notes}" if row.notes else row.why,
                )
                for row in rows
            ],
        )
    elif not found.answers and not found.broken:
        print("no backend is installed: pip install phi3-openvino")
    for backend, refusal in found.refusals:
        output.print_line(
            f"not usable: {backend}: {refusal.reason}" + (f" -> {refusal.remedy}" if refusal.remedy else "")
        )
    for each, remedy in _without_backend(found):
        output.print_line(f"not used: {each.name}: no backend for it is installed -> {remedy}")
    for broken in found.broken:
        output.print_line(f"broken: {broken.plugin} ({broken.distribution}): {broken.error}")

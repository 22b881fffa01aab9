"""Devices that failed, in the store: a file for each, until it works again or enough time has passed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_core import files, paths
from phi3_core.plugin import Backend
from phi3_core.values import Device, to_plain

from .values import Failure

_LONGEST_REASON = 300


def note(backend: Backend, device: Device, reason: str) -> None:
    """Record that a device failed now, if the store can be written."""
    failure = Failure(
        device=str(device),
        reason=reason.removeprefix(f"{device}: ")[:_LONGEST_REASON],
        time=time.time(),
        version=backend.release,
        driver=device.driver,
    )
    with contextlib.suppress(OSError):
        paths.write_json(_file(failure.device), to_plain(failure))


def is_noted(device: str) -> bool:
    """Return whether the store has a failure of a device, however old."""
    return _file(device).is_file()


def clear(device: str) -> None:
    """Forget that a device failed, because it has worked, if the store can be written."""
    with contextlib.suppress(OSError):
        files.unlink(_file(device))


def clear_all() -> int:
    """Forget all failures, and return their number.

    Raises:
        OSError: the store cannot be written.
    """
    found = list(_folder().glob("*.json"))
    for file in found:
        files.unlink(file)
    return len(found)


def held_back(backends: Mapping[str, Backend], devices: list[Device], now: float) -> dict[str, Failure]:
    """Return the failures of devices that are put last now.

    A failure is not counted any more when the device's driver, or its backend, has another version.
    """
    found = {}
    for device in devices:
        failure = _read(_file(str(device)))
        if failure is None or failure.device != str(device) or not failure.left_s(now):
            continue
        backend = backends.get(device.backend)
        if failure.driver == device.driver and (backend is None or failure.version == backend.release):
            found[failure.device] = failure
    return found


def _read(file: Path) -> Failure | None:
    content: Any = paths.read_json(file)
    try:
        names = ("device", "reason", "version")
        return Failure(
            **{name: str(content[name]) for name in names}, time=float(content["time"]), driver=content.get("driver")
        )
    except paths.DAMAGED:
        return None


def _folder() -> Path:
    return paths.home() / "failures"


def _file(device: str) -> Path:
    return paths.keyed_file(_folder(), device)

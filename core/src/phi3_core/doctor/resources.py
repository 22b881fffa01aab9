"""Memory and disk: how much there is, what control groups allow, and whether it is enough for Phi-3."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from phi3_core import cgroups, disk, paths
from phi3_core.errors import Phi3Error
from phi3_core.models import DEFAULT
from phi3_core.models.catalogue import CATALOGUE
from phi3_core.models.fit import weights_bytes
from phi3_core.units import format_bytes
from phi3_core.values import Finding

_RUNTIME_BYTES = 2 * 10**9
"""What a runtime takes beside weights of Phi-3-mini in int4: 0.7 to 2.0 GB were measured."""


@frozen(kw_only=True)
class Resources:
    """Memory in bytes, processors, and the store's disk."""

    memory_bytes: int
    """The memory of the machine, whatever this process may use of it."""
    memory_available_bytes: int
    """What this process can get now."""
    memory_limit_bytes: int | None
    """What control groups allow this process; None if there is no limit."""
    processors: int
    """The number of processors of the machine."""
    usable_processors: int
    """How many of them this process may use."""
    store: str
    store_free_bytes: int | None
    """Free bytes of the store's disk; None if it tells none."""
    store_problem: str = ""
    """Why the store cannot be written; empty if it can."""


def read_resources() -> Resources:
    """Read the resources of this machine. A small file is written to the store's folder and removed."""
    import psutil  # start-up: tens of milliseconds

    memory, limit, left = psutil.virtual_memory(), cgroups.memory_limit(), cgroups.memory_available()
    store = paths.home()
    free, problem = _free(store)
    return Resources(
        memory_bytes=memory.total,
        memory_available_bytes=memory.available if left is None else min(memory.available, left),
        memory_limit_bytes=limit if limit is not None and limit < memory.total else None,
        processors=os.cpu_count() or 1,
        usable_processors=cgroups.processors(),
        store=str(store),
        store_free_bytes=free,
        store_problem=problem,
    )


def _free(store: Path) -> tuple[int | None, str]:
    try:
        free = disk.free_bytes(store)
    except Phi3Error as error:
        return None, error.message
    return free, disk.write_problem(disk.existing_parent(store), 1)


def findings(found: Resources) -> Iterator[Finding]:
    """Yield what is missing for Phi-3-mini."""
    mini = CATALOGUE[DEFAULT]
    int4, source = weights_bytes(mini, "int4"), weights_bytes(mini, "fp16")
    if found.store_problem:
        # Only a full disk gets better by freeing some: others are read-only, or belong to somebody else.
        remedy = disk.STORE_HINT if found.store_free_bytes == 0 else "set PHI3_HOME to a folder that you may write to"
        yield Finding(severity="error", message=f"the store cannot be written: {found.store_problem}", remedy=remedy)
    elif found.store_free_bytes is not None and found.store_free_bytes < int4 + source:
        free, weights = format_bytes(found.store_free_bytes), format_bytes(int4)
        is_short = found.store_free_bytes < int4
        more = "" if is_short else f", and {format_bytes(int4 + source)} while they are quantized"
        message = f"{free} are free on the store's disk; the weights of {DEFAULT} take about {weights} in int4{more}"
        remedy = f"phi3 models rm --unused 30, or {disk.STORE_HINT}"
        yield Finding(severity="warning" if is_short else "info", message=message, remedy=remedy)
    available, need = found.memory_available_bytes, int4 + _RUNTIME_BYTES
    if available < need:
        limit = found.memory_limit_bytes
        allowed = f" of the {format_bytes(limit)} that a control group allows" if limit is not None else ""
        yield Finding(
            severity="warning",
            message=f"{format_bytes(available)} of memory are available{allowed}; {DEFAULT} in int4 takes about "
            f"{format_bytes(need)}",
            remedy=_more_memory(limit, need),
        )


def _more_memory(limit: int | None, need: int) -> str:
    if limit is not None and limit < need:
        return f"give the container more memory, as in docker run --memory {need // 10**9 + 1}g"
    return "close other programs, or try a smaller model: phi3 run -m sample"

"""``phi3 models verify`` and ``rm``: check, repair and remove models in the store."""

from __future__ import annotations

import argparse
import time

from phi3_core.errors import ModelError, UsageError
from phi3_core.units import format_bytes

from . import streams
from .entries import describe


def call_verify(given: argparse.Namespace) -> int:
    """Run ``phi3 models verify`` and return its exit code."""
    from phi3_core.hub import fetch
    from phi3_core.models.ref import stored_name
    from phi3_core.store import manifest
    from phi3_core.store.entry import removal_hint
    from phi3_core.store.store import Store

    from . import output

    store = Store()
    name = stored_name(given.model, store)
    entries = [entry for entry in store.entries() if entry.model == name]
    if not entries:
        raise ModelError(f"the store has no such model {given.model!r}", hint="phi3 models list")
    if given.repair:
        progress = output.Progress()
        for entry in entries:
            fetch.repair(entry, progress)
        progress.clear()
    rows = [{**describe(entry), "wrong": manifest.damaged(entry.path, entry.manifest)} for entry in entries]
    for row in rows:
        if row["damaged"]:
            row["wrong"] = {manifest.NAME: "damaged"}
    if given.json:
        output.print_json({"entries": rows})
    else:
        for row in rows:
            said = "; ".join(f"{name} is {what}" for name, what in row["wrong"].items())
            print(f"{row['path']}: {said or 'whole'}")
    wrong = [entry for entry, row in zip(entries, rows, strict=True) if row["wrong"]]
    if wrong:
        hint = removal_hint(wrong[0].model, wrong[0].backend, wrong[0].precision)
        if not given.repair and any(map(fetch.from_hub, wrong)):
            hint = f"phi3 models verify --repair {given.model}"
        raise ModelError(f"{given.model} is damaged", hint=hint)
    return 0


def call_remove(given: argparse.Namespace) -> int:
    """Run ``phi3 models rm`` and return its exit code."""
    from phi3_core.models import sample
    from phi3_core.models.ref import stored_name
    from phi3_core.store.store import Store

    from . import output

    if given.toolchains:
        return _remove_toolchains(given)
    if given.source and (given.backend or given.precision):
        raise UsageError("--source goes with neither --backend nor --precision")
    if given.model is None and given.unused is None:
        raise UsageError("MODEL or --unused is required", hint="phi3 models rm MODEL, or --unused DAYS")
    before = time.time() - 86400 * given.unused if given.unused is not None else None
    store = Store()
    name = None if given.model is None else stored_name(given.model, store)
    entries = [
        entry
        for entry in store.entries()
        if name in {None, entry.model}
        and (before is None or entry.used < before)
        and (not given.source or entry.backend is None)
        and given.backend in (None, entry.backend)
        and given.precision in (None, entry.precision)
    ]
    whole = name == sample.NAME and not (given.source or given.backend or given.precision or before)
    packages = store.packages() if whole else []
    if not entries and not packages and given.unused is None:
        raise ModelError(f"the store has no such model {given.model!r}", hint="phi3 models list")
    for entry in entries:
        store.remove(entry)
    freed = sum(entry.size_bytes for entry in entries) + (store.remove_packages() if packages else 0)
    if given.json:
        output.print_json({"removed": [describe(entry) for entry in entries], "bytes": freed})
    else:
        names = ", ".join(sorted({*(entry.model for entry in entries), *(folder.name for folder in packages)}))
        names = names or "nothing"
        streams.tell(f"phi3: removed {names}, {format_bytes(freed)}")
    return 0


def _remove_toolchains(given: argparse.Namespace) -> int:
    from phi3_core.toolchains import toolchain

    from . import output

    if given.model or given.backend or given.precision or given.source or given.unused is not None:
        raise UsageError("--toolchains goes with nothing else")
    removed = toolchain.remove()
    freed = sum(each.size_bytes for each in removed)
    if given.json:
        output.print_json({"removed": [{"name": each.name, "path": each.path} for each in removed], "bytes": freed})
    else:
        names = ", ".join(sorted({each.name for each in removed})) or "nothing"
        streams.tell(f"phi3: removed {names}, {format_bytes(freed)}")
    return 0

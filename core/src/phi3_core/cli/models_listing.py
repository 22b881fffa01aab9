"""``phi3 models list`` and ``show``: the catalogue, and the contents of the store."""

from __future__ import annotations

import argparse

from phi3_core.units import format_bytes

from .entries import date, describe

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import Any


def call_list(given: argparse.Namespace) -> int:
    """Run ``phi3 models list`` and return its exit code."""
    from phi3_core.config.values import aliases
    from phi3_core.models.catalogue import CATALOGUE
    from phi3_core.store.entry import folder_bytes
    from phi3_core.store.store import Store
    from phi3_core.toolchains import toolchain

    from . import output

    store = Store()
    entries = [describe(entry) for entry in store.entries()]
    here = {row["model"] for row in entries}
    tools: list[dict[str, Any]] = [
        {"name": each.name, "bytes": each.size_bytes, "path": each.path, "used": date(each.used)}
        for each in toolchain.installed()
    ]
    packages: list[dict[str, Any]] = [
        {"name": each.name, "bytes": folder_bytes(each), "path": each} for each in store.packages()
    ]
    total, free = sum(row["bytes"] for row in (*entries, *tools, *packages)), store.free_bytes()
    if given.json:
        catalogue = [{**known._asdict(), "in_store": known.name in here} for known in CATALOGUE.values()]
        output.print_json(
            {
                "store": store.root,
                "bytes": total,
                "free_bytes": free,
                "entries": entries,
                "catalogue": catalogue,
                "toolchains": tools,
                "packages": packages,
                "aliases": aliases(),
            }
        )
        return 0
    rows = [
        (
            row["model"],
            row["backend"] or "-",
            row["precision"] or "source",
            format_bytes(row["bytes"]),
            row["used"][:10],
            "damaged" if row["damaged"] else _quality(row["quality"]),
        )
        for row in entries
    ]
    rows += [(known.name, "-", "-", "not here", "", "") for known in CATALOGUE.values() if known.name not in here]
    rows += [(each["name"], "-", "toolchain", format_bytes(each["bytes"]), each["used"][:10], "") for each in tools]
    rows += [(each["name"], "-", "package", format_bytes(each["bytes"]), "", "") for each in packages]
    output.print_table(("model", "backend", "precision", "size", "last use", "quality"), rows)
    for name, model in aliases().items():
        print(f"{name} is an alias of {model}")
    print(f"{format_bytes(total)} in {store.root}, {format_bytes(free)} free")
    return 0


def _quality(report: Any) -> str:
    """Return the perplexity of a quality report and of its reference; empty if it was not measured."""
    if not isinstance(report, dict) or "perplexity" not in report:
        return ""
    return f"perplexity {report['perplexity']:.2f} ({report.get('perplexity_reference', 0):.2f})"


def call_show(given: argparse.Namespace) -> int:
    """Run ``phi3 models show`` and return its exit code."""
    from phi3_core.hub import cache
    from phi3_core.models import gguf_source
    from phi3_core.models.catalogue import CATALOGUE
    from phi3_core.models.ref import look_up
    from phi3_core.store.store import Store

    from . import output

    store = Store()
    reference = look_up(given.model, store)
    known = CATALOGUE.get(reference.name) if reference.form == "named" else None
    entries = [entry for entry in store.entries() if entry.model == reference.store_name]
    gguf = None if reference.path is None or reference.path.is_dir() else gguf_source.describe(reference.path)
    address = reference.address
    cached = cache.find(address.repository, address.revision) if address else None
    lacking = cached.lacks(address.path) if address and cached else []
    document: dict[str, Any] = {
        "model": reference.name,
        "form": reference.form,
        "path": reference.path,
        "catalogue": known._asdict() if known else None,
        "gguf": gguf,
        "repository": str(address) if address else None,
        "hub_cache": {"path": cached.path, "missing": lacking} if cached else None,
        "entries": [{**describe(entry), "manifest": entry.manifest} for entry in entries],
    }
    if given.json:
        output.print_json(document)
        return 0
    print(reference.name + (f": {known.title}" if known else ""))
    if known:
        print(f"  {known.parameters / 1e9:.2f} billion parameters, context of {known.context_length} tokens")
        print(f"  licence {known.licence}" + (f", from {known.repository}" if known.repository else ""))
    if reference.form == "hub":
        print(f"  {address} on the hub")
    if reference.path:
        print(f"  {reference.form} in {reference.path}")
    if gguf:
        kinds = ", ".join(gguf.tensor_types)
        print(f"  GGUF, architecture {gguf.architecture}, {kinds}, context of {gguf.context_length} tokens")
    for entry in entries:
        what = f"{entry.backend} {entry.precision}" if entry.backend else "original weights"
        state = ", damaged" if entry.manifest.get("damaged") else ""
        measured = _quality(entry.manifest.get("quality"))
        print(f"  {what}, {format_bytes(entry.size_bytes)}, {entry.path}{state}{', ' if measured else ''}{measured}")
    if cached:
        print(f"  in the hub's cache, {cached.path}" + (f", without {', '.join(lacking)}" if lacking else ""))
    if reference.path is None and not entries:
        print("  not in the store")
    return 0

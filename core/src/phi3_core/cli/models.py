"""``phi3 models``: what there is, what is here, getting it and getting rid of it."""

from __future__ import annotations

import argparse
import sys
import time

from phi3_core.errors import ModelError, UsageError

from . import options

TYPE_CHECKING = False  # as in the package itself
if TYPE_CHECKING:
    from typing import Any

    from phi3_core.models.store import Entry


def add(commands: Any) -> None:
    command = commands.add_parser(
        "models",
        help="list, show, pull, verify or remove models",
        description="The models that there are.",
    )
    verbs = command.add_subparsers(metavar="VERB", required=True, parser_class=type(command))
    listing = verbs.add_parser("list", help="what is in the store, and what the catalogue knows")
    show = verbs.add_parser("show", help="all that is known about one model")
    pull = verbs.add_parser("pull", help="get a model, in the form that suits the device")
    verify = verbs.add_parser("verify", help="read every file of a model and compare it with its hash")
    remove = verbs.add_parser("rm", help="remove a model from the store")
    for verb, call in (
        (listing, call_list),
        (show, call_show),
        (pull, call_pull),
        (verify, call_verify),
        (remove, call_remove),
    ):
        if verb is not listing:
            verb.add_argument("model", metavar="MODEL", nargs="?" if verb is remove else None)
        options.finish(verb, call, json="print the result as JSON", quiet=False)
    pull.add_argument("--source", action="store_true", help="get the original weights, from which backends quantize")
    pull.add_argument("--update", action="store_true", help="get the newest revision, if there is a newer one")
    pull.add_argument("--dry-run", action="store_true", help="only say what would be downloaded")
    options.add_offline(pull)
    options.add_device(pull)
    verify.add_argument("--repair", action="store_true", help="fetch what is damaged again, and nothing else")
    options.add_quiet(pull)
    remove.add_argument("--backend", help="only what is for this backend")
    remove.add_argument("-p", "--precision", choices=("fp16", "int8", "int4"), help="only this precision")
    remove.add_argument("--unused", metavar="DAYS", type=int, help="only what has not been used for so many days")
    remove.add_argument("--source", action="store_true", help="only the original weights")
    remove.add_argument("--toolchains", action="store_true", help="what was installed for --exporter reference")


def _date(seconds: float) -> str:
    from datetime import datetime, timezone

    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "model": entry.model,
        "backend": entry.backend,
        "precision": entry.precision,
        "form": "artifact" if entry.backend else "source",
        "bytes": entry.size_bytes,
        "path": entry.path,
        "revision": entry.manifest.get("revision"),
        "used": _date(entry.used),
        "quality": entry.manifest.get("quality"),
        "damaged": bool(entry.manifest.get("damaged")),
    }


def call_list(given: argparse.Namespace) -> int:
    from phi3_core.models.catalogue import CATALOGUE
    from phi3_core.models.store import Store
    from phi3_core.quantization import toolchain

    from . import output

    store = Store()
    entries = [_row(entry) for entry in store.entries()]
    here = {row["model"] for row in entries}
    tools: list[dict[str, Any]] = [
        {"name": each.name, "bytes": each.size_bytes, "path": each.path, "used": _date(each.used)}
        for each in toolchain.installed()
    ]
    total, free = sum(row["bytes"] for row in (*entries, *tools)), store.free_bytes()
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
            }
        )
        return 0
    rows = [
        (
            row["model"],
            row["backend"] or "-",
            row["precision"] or "source",
            output.size(row["bytes"]),
            row["used"][:10],
            _quality(row["quality"]),
        )
        for row in entries
    ]
    rows += [(known.name, "-", "-", "not here", "", "") for known in CATALOGUE.values() if known.name not in here]
    rows += [(each["name"], "-", "toolchain", output.size(each["bytes"]), each["used"][:10], "") for each in tools]
    output.print_table(("model", "backend", "precision", "size", "last use", "quality"), rows)
    print(f"{output.size(total)} in {store.root}, {output.size(free)} free")
    return 0


def _quality(report: Any) -> str:
    """The report's perplexity, and that of the reference, if it was measured."""
    if not isinstance(report, dict) or "perplexity" not in report:
        return ""
    return f"perplexity {report['perplexity']:.2f} ({report.get('perplexity_reference', 0):.2f})"


def call_show(given: argparse.Namespace) -> int:
    from phi3_core.models.catalogue import CATALOGUE
    from phi3_core.models.lookup import look_up
    from phi3_core.models.store import Store

    from . import output

    store = Store()
    reference = look_up(given.model, store)
    known = CATALOGUE.get(reference.name) if reference.form == "named" else None
    entries = [entry for entry in store.entries() if reference.form == "named" and entry.model == reference.name]
    document: dict[str, Any] = {
        "model": reference.name,
        "form": reference.form,
        "path": reference.path,
        "catalogue": known._asdict() if known else None,
        "entries": [{**_row(entry), "manifest": entry.manifest} for entry in entries],
    }
    if given.json:
        output.print_json(document)
        return 0
    print(reference.name + (f": {known.title}" if known else ""))
    if known:
        print(f"  {known.parameters / 1e9:.2f} billion parameters, context of {known.context_length} tokens")
        print(f"  licence {known.licence}" + (f", from {known.repository}" if known.repository else ""))
    if reference.path:
        print(f"  {reference.form} in {reference.path}")
    for entry in entries:
        what = f"{entry.backend} {entry.precision}" if entry.backend else "original weights"
        print(f"  {what}, {output.size(entry.size_bytes)}, {entry.path}")
    if known and not entries:
        print("  not in the store")
    return 0


def call_pull(given: argparse.Namespace) -> int:
    from phi3_core.models import local, sources
    from phi3_core.models.lookup import look_up
    from phi3_core.models.store import Store

    from . import output
    from .opening import set_out

    if given.dry_run:
        return _dry_run(given)
    progress = output.Progress()
    if given.source:
        store = Store()
        source = sources.source_of(
            look_up(given.model, store), store, progress, offline=given.offline, update=given.update
        )
        result = {"model": source.model, "form": "source", "revision": source.revision, "path": source.path}
    else:
        journey = set_out(given, progress, update=given.update)
        device, found = journey.fetch()
        artifact = found.artifact
        if journey.reference.form == "artifact":
            artifact = local.take_in(journey.reference.name, found, journey.store)
        result = {
            "model": journey.reference.name,
            "form": "artifact",
            "device": str(device),
            "backend": artifact.backend,
            "precision": artifact.precision,
            "revision": artifact.manifest.get("revision"),
            "how": found.how,
            "path": artifact.path,
        }
    progress.clear()
    if given.json:
        output.print_json(result)
    else:
        print(result["path"])
    return 0


def _dry_run(given: argparse.Namespace) -> int:
    """What a pull would download: the files and their sizes."""
    from phi3_core.models import plan
    from phi3_core.models.lookup import look_up
    from phi3_core.models.store import Store

    from . import output
    from .opening import set_out

    if given.source:
        planned = plan.for_source(look_up(given.model, Store()), offline=given.offline)
    else:
        planned = set_out(given, output.Progress(), update=given.update).plan()
    if given.json:
        output.print_json(planned)
        return 0
    for file in planned.files:
        print(f"{output.size(file.size):>10}  {file.name}")
    print(f"{output.size(planned.size_bytes):>10}  {planned.words}")
    return 0


def call_verify(given: argparse.Namespace) -> int:
    from phi3_core.models import fetch, manifest
    from phi3_core.models.store import Store

    from . import output

    store = Store()
    entries = [entry for entry in store.entries() if entry.model == given.model]
    if not entries:
        raise ModelError(f"the store has no such model {given.model!r}", hint="phi3 models list")
    if given.repair:
        progress = output.Progress()
        for entry in entries:
            fetch.repair(entry, progress)
        progress.clear()
    rows = [{**_row(entry), "wrong": manifest.damaged(entry.path, entry.manifest)} for entry in entries]
    for row in rows:
        if row["damaged"]:
            row["wrong"] = {manifest.NAME: "damaged"}
    if given.json:
        output.print_json({"entries": rows})
    else:
        for row in rows:
            said = "; ".join(f"{name} is {what}" for name, what in row["wrong"].items())
            print(f"{row['path']}: {said or 'whole'}")
    if any(row["wrong"] for row in rows):
        can_be = not given.repair and any(fetch.from_hub(entry) for entry in entries)
        again = f"phi3 models verify --repair {given.model}"
        hint = again if can_be else f"phi3 models rm {given.model}, then pull it again"
        raise ModelError(f"{given.model} is damaged", hint=hint)
    return 0


def call_remove(given: argparse.Namespace) -> int:
    from phi3_core.models.store import Store

    from . import output

    if given.toolchains:
        return _remove_toolchains(given)
    if given.source and (given.backend or given.precision):
        raise UsageError("--source goes with neither --backend nor --precision")
    if given.model is None and given.unused is None:
        raise UsageError("which model?", hint="phi3 models rm MODEL, or --unused DAYS")
    before = time.time() - 86400 * given.unused if given.unused is not None else None
    store = Store()
    entries = [
        entry
        for entry in store.entries()
        if given.model in {None, entry.model}
        and (before is None or entry.used < before)
        and (not given.source or entry.backend is None)
        and given.backend in (None, entry.backend)
        and given.precision in (None, entry.precision)
    ]
    if not entries and given.unused is None:
        raise ModelError(f"the store has no such model {given.model!r}", hint="phi3 models list")
    for entry in entries:
        store.remove(entry)
    freed = sum(entry.size_bytes for entry in entries)
    if given.json:
        output.print_json({"removed": [_row(entry) for entry in entries], "bytes": freed})
    else:
        names = ", ".join(sorted({entry.model for entry in entries})) or "nothing"
        print(f"phi3: removed {names}, {output.size(freed)}", file=sys.stderr)
    return 0


def _remove_toolchains(given: argparse.Namespace) -> int:
    from phi3_core.quantization import toolchain

    from . import output

    if given.model or given.backend or given.precision or given.source or given.unused is not None:
        raise UsageError("--toolchains goes with nothing else")
    removed = toolchain.remove()
    freed = sum(each.size_bytes for each in removed)
    if given.json:
        output.print_json({"removed": [{"name": each.name, "path": each.path} for each in removed], "bytes": freed})
    else:
        names = ", ".join(sorted({each.name for each in removed})) or "nothing"
        print(f"phi3: removed {names}, {output.size(freed)}", file=sys.stderr)
    return 0

"""``phi3 models``: what there is, what is here, getting it and getting rid of it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from phi3_core.errors import ModelError, UsageError

from . import options

if TYPE_CHECKING:
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
            verb.add_argument("model", metavar="MODEL")
        verb.add_argument("--json", action="store_true", help="print the result as JSON")
        options.add_traceback(verb)
        verb.set_defaults(call=call)
    pull.add_argument("--source", action="store_true", help="get the original weights, from which backends quantize")
    options.add_device(pull)
    options.add_quiet(pull)
    remove.add_argument("--backend", help="only what is for this backend")
    remove.add_argument("-p", "--precision", choices=("fp16", "int8", "int4"), help="only this precision")
    remove.add_argument("--source", action="store_true", help="only the original weights")


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "model": entry.model,
        "backend": entry.backend,
        "precision": entry.precision,
        "form": "artifact" if entry.backend else "source",
        "bytes": entry.size_bytes,
        "path": entry.path,
        "damaged": bool(entry.manifest.get("damaged")),
    }


def call_list(given: argparse.Namespace) -> int:
    from phi3_core.models.catalogue import CATALOGUE
    from phi3_core.models.store import Store

    from . import output

    entries = [_row(entry) for entry in Store().entries()]
    here = {row["model"] for row in entries}
    if given.json:
        catalogue = [{**known._asdict(), "in_store": known.name in here} for known in CATALOGUE.values()]
        output.print_json({"store": str(Store().root), "entries": entries, "catalogue": catalogue})
        return 0
    rows = [
        (row["model"], row["backend"] or "-", row["precision"] or "source", output.size(row["bytes"]))
        for row in entries
    ]
    rows += [(known.name, "-", "-", "not in the store") for known in CATALOGUE.values() if known.name not in here]
    output.print_table(("model", "backend", "precision", "size"), rows)
    return 0


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
    from phi3_core import pipeline
    from phi3_core.models import obtain
    from phi3_core.models.lookup import look_up
    from phi3_core.models.store import Store
    from phi3_core.selection import Wish

    from . import output

    progress = output.Progress()
    if given.source:
        store = Store()
        source = obtain.source_of(look_up(given.model, store), store, progress)
        result = {"model": source.model, "form": "source", "path": source.path}
    else:
        wish = Wish(device=given.device, precision=given.precision, policy=given.policy)
        journey = pipeline.set_out(given.model, wish, progress=progress, refresh=given.refresh)
        device, found = journey.fetch()
        artifact = found.artifact
        if journey.reference.form == "artifact":
            artifact = obtain.take_in(journey.reference, found, journey.store)
        result = {
            "model": journey.reference.name,
            "form": "artifact",
            "device": device,
            "backend": artifact.backend,
            "precision": artifact.precision,
            "how": found.how,
            "path": artifact.path,
        }
    progress.clear()
    if given.json:
        output.print_json({**result, "device": str(result["device"])} if "device" in result else result)
    else:
        print(result["path"])
    return 0


def call_verify(given: argparse.Namespace) -> int:
    from phi3_core.models import manifest
    from phi3_core.models.store import Store

    from . import output

    entries = [entry for entry in Store().entries() if entry.model == given.model]
    if not entries:
        raise ModelError(f"the store has no such model {given.model!r}", hint="phi3 models list")
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
        raise ModelError(f"{given.model} is damaged", hint=f"phi3 models rm {given.model}, then pull it again")
    return 0


def call_remove(given: argparse.Namespace) -> int:
    from phi3_core.models.store import Store

    from . import output

    if given.source and (given.backend or given.precision):
        raise UsageError("--source goes with neither --backend nor --precision")
    store = Store()
    entries = [
        entry
        for entry in store.entries()
        if entry.model == given.model
        and (not given.source or entry.backend is None)
        and given.backend in (None, entry.backend)
        and given.precision in (None, entry.precision)
    ]
    if not entries:
        raise ModelError(f"the store has no such model {given.model!r}", hint="phi3 models list")
    for entry in entries:
        store.remove(entry)
    freed = sum(entry.size_bytes for entry in entries)
    if given.json:
        output.print_json({"removed": [_row(entry) for entry in entries], "bytes": freed})
    else:
        print(f"phi3: removed {given.model}, {output.size(freed)}", file=sys.stderr)
    return 0

"""``phi3 models``: list, show, pull, verify and remove models."""

from __future__ import annotations

from . import models_listing, models_pull, models_upkeep, options

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import Any


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "models",
        help="list, show, pull, verify or remove models",
        description="Manage models.",
    )
    verbs = command.add_subparsers(metavar="VERB", required=True, parser_class=type(command))
    listing = verbs.add_parser("list", help="what is in the store, and what the catalogue knows")
    show = verbs.add_parser("show", help="all that is known about one model")
    pull = verbs.add_parser("pull", help="download or quantize a model for the device")
    verify = verbs.add_parser("verify", help="read every file of a model and compare it with its hash")
    remove = verbs.add_parser("rm", help="remove a model from the store")
    for verb, call in (
        (listing, models_listing.call_list),
        (show, models_listing.call_show),
        (pull, models_pull.call_pull),
        (verify, models_upkeep.call_verify),
        (remove, models_upkeep.call_remove),
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
    remove.add_argument("--unused", metavar="DAYS", type=int, help="only models that were not used for DAYS days")
    remove.add_argument("--source", action="store_true", help="only the original weights")
    remove.add_argument("--toolchains", action="store_true", help="what was installed for --exporter reference")

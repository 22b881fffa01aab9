"""``phi3 plugins``: the installed backends, their versions and their hooks; ``new`` starts one, ``check`` tests one."""

from __future__ import annotations

import argparse

from . import options, plugins_check, plugins_new

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import Any


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "plugins",
        help="installed backends, versions, hooks; new NAME starts one, check NAME tests one",
        description="List the installed backends, start one, or test one.",
    )
    options.add_refresh(command)
    options.finish(command, call, json="print everything as JSON", quiet=False)
    verbs = command.add_subparsers(metavar="VERB", parser_class=type(command))
    plugins_new.add(verbs)
    plugins_check.add(verbs)


def call(given: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from phi3_core.surveys import survey

    from . import output

    found = survey(refresh=given.refresh)
    if given.json:
        plugins = [
            {
                "plugin": answer.backend.name,
                "distribution": answer.backend.distribution,
                "version": answer.backend.version,
                "hooks": answer.hooks,
            }
            for answer in found.answers
        ]
        output.print_json({"plugins": plugins, "broken": found.broken})
        return 0
    if not found.answers and not found.broken:
        print("no backend is installed: pip install phi3-openvino")
    else:
        output.print_table(
            ("plugin", "distribution", "version", "hooks"),
            [
                *(
                    (answer.backend.name, answer.backend.distribution, answer.backend.version, " ".join(answer.hooks))
                    for answer in found.answers
                ),
                *((broken.plugin, broken.distribution, "broken", broken.error) for broken in found.broken),
            ],
        )
    return 0

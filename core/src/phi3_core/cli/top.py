"""``phi3 top``: what the running engines and their devices do."""

from __future__ import annotations

import argparse
import sys
import time

from . import options

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import Any

    from rich.console import Console

    from phi3_core.activity.overview import Observer

_SHORTEST_S = 0.5


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "top",
        help="what the running engines and their devices do",
        description="Show the engines that your programs have loaded, and how busy they keep processors. "
        "On a terminal it goes on until Ctrl-C.",
    )
    command.add_argument("--once", action="store_true", help="print what they do for one interval, and end")
    command.add_argument("--interval", metavar="SECONDS", type=_seconds, default=1.0, help="how often to look [1]")
    options.finish(command, call, json="print it as JSON, once", quiet=False)


def _seconds(given: str) -> float:
    """Parse an interval in seconds: drivers are not to be asked too often."""
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not _SHORTEST_S <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"expected seconds, {_SHORTEST_S:g} to 3600, got {given!r}")
    return seconds


def call(given: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from phi3_core.activity.overview import Observer

    from . import output
    from . import top_output as shown

    observer, console = Observer(), output.make_console()
    if not (given.json or given.once) and sys.stdout.isatty() and not console.is_dumb_terminal:
        _watch(observer, console, given.interval)
        return 0
    if observer.look().engines or given.json:
        time.sleep(given.interval)
    overview = observer.look()
    if given.json:
        output.print_json(shown.document(overview))
    else:
        width = console.width if sys.stdout.isatty() else output.UNBOUNDED
        shown.print_overview(overview, console, width)
    return 0


def _watch(observer: Observer, console: Console, interval_s: float) -> None:
    """Show the figures until Ctrl-C."""
    from rich.live import Live

    from . import top_output as shown

    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(shown.screen(observer.look(), console), refresh=True)
                time.sleep(interval_s)
    except KeyboardInterrupt:  # the way to end it
        return

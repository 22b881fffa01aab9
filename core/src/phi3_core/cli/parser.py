"""The argument parser of all commands."""

from __future__ import annotations

import argparse

from phi3_core import __version__

from . import (
    bench,
    chat,
    config,
    devices,
    doctor,
    eval,  # noqa: A004 - as the command
    launch,
    models,
    plugins,
    quantize,
    run,
    serve,
    top,
)

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import NoReturn

EXIT_CODES = """\
exit codes: 0 done, 1 unexpected, 2 usage, 3 no usable device, 4 model cannot be had or is damaged,
5 a backend failed, 130 interrupted"""

_COMMANDS = (run, chat, devices, plugins, models, quantize, eval, bench, serve, launch, doctor, top, config)


class Parser(argparse.ArgumentParser):
    """An argument parser that reports errors in one line."""

    def error(self, message: str) -> NoReturn:
        """Print an error in one line and exit with code 2."""
        self.exit(2, f"phi3: {message} ({self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser. Each command's module adds its arguments, and sets ``call`` to the function that runs it."""
    top = Parser(
        prog="phi3",
        description="Run the Phi-3 family of language models on the hardware you have.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"phi3-core {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for command in _COMMANDS:
        command.add(commands)
    return top

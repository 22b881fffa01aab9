"""Parse the command line, run the command, and print its errors."""

from __future__ import annotations

import contextlib
import sys

from phi3_core.errors import Phi3Error

from . import configured, streams
from .parser import parser

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def run(arguments: Sequence[str] | None, begin: Callable[[], object]) -> int:
    """Run a command and return its exit code. All errors are printed here.

    Args:
        arguments: by default those of the process.
        begin: called when Ctrl-C is handled from now on.
    """
    streams.prepare()
    given = parser().parse_args(arguments)
    from phi3_core.config import file

    from . import output

    file.forget()  # this command reads it once
    output.prepare(quiet=getattr(given, "quiet", True))
    begin()
    try:
        if not getattr(given, "unconfigured", False):
            configured.fill(given)
            output.prepare(quiet=getattr(given, "quiet", True))
        code: int = given.call(given)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except Phi3Error as error:
        with contextlib.suppress(Phi3Error):  # that of the configuration itself
            configured.explain(error, given)
        output.print_error(error, traceback=given.traceback)
        return error.exit_code
    except Exception as error:
        if isinstance(error, OSError) and streams.is_reader_gone(error):
            streams.discard_output()
            return 0
        if isinstance(error, OSError) and streams.is_not_written(error):
            streams.discard_output()
            output.logger.error("the output cannot be written: %s", error.strerror)
            return 1
        output.print_unexpected(error, traceback=given.traceback)
        return 1
    return code

"""The kit's plugin of pytest: ``--require-backend``, and the quirks and blocked tests in the summary.

The quirks are in the summary of every run in one process. For the option, and under pytest-xdist, load it by
``-p phi3_core.testing.plugin``. Installing phi3-core loads nothing into anybody's pytest.
"""

from __future__ import annotations

import sys

import pytest

NAME = "phi3_core.testing.plugin"
REQUIRED = "phi3_required_backends"
"""The name of the option ``--require-backend``."""
QUIRK = "phi3 quirk"
"""The property of a report with the reason of a quirk."""
UNAVAILABLE = "phi3 unavailable"
"""The property of a report with the reason why no engine can be loaded, such as that there is no device."""
REPLACED = "_phi3_replaced"
"""The attribute of a test that replaces one of the contract."""
BLOCKED = "not run:"
"""The first words of the report of a test that needs what failed in another."""


def register(config: pytest.Config) -> None:
    """Load this plugin, unless it is loaded already."""
    if not config.pluginmanager.has_plugin(NAME):
        config.pluginmanager.register(sys.modules[__name__], NAME)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--require-backend``."""
    parser.getgroup("phi3").addoption(
        "--require-backend",
        dest=REQUIRED,
        action="append",
        default=[],
        metavar="NAME",
        help="fail, instead of skipping, the contract's tests of this backend if none of its engines can be loaded",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the quirks of the backends."""
    found: dict[str, str] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == QUIRK:
                    found[report.nodeid] = str(value)
    if found:
        terminalreporter.section("quirks of backends")
        for node, reason in sorted(found.items()):
            terminalreporter.line(f"{node}: {reason}")

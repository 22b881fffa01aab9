"""The results as JSON, and as the report that is sent to others, both without anything private."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from phi3_core import __version__
from phi3_core.surveys import Answer
from phi3_core.values import to_plain

from .anonymous import anonymous
from .diagnostics import Diagnostics
from .privacy import Identity
from .text import lines

_WIDTH = 120


def document(found: Diagnostics, identity: Identity) -> dict[str, Any]:
    """Return the results as JSON-compatible data."""
    content = {**to_plain(found), "exit_code": found.exit_code}
    content["survey"]["answers"] = [_plain_answer(answer) for answer in found.survey.answers]
    private = anonymous(content, identity)
    assert isinstance(private, dict)
    return private


def report(found: Diagnostics, identity: Identity) -> str:
    """Return the report: all that there is, as text in lines of up to 120 characters."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    head = f"phi3 doctor, phi3-core {__version__}, {now}, exit code {found.exit_code}"
    text = anonymous("\n".join([head, "", *lines(found, detailed=True)]), identity)
    return "\n".join([*_wrapped(text), ""])


def _wrapped(text: str) -> Iterator[str]:
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        wrapper = textwrap.TextWrapper(_WIDTH, subsequent_indent=indent, break_on_hyphens=False)
        yield from wrapper.wrap(line) or [""]


def _plain_answer(answer: Answer) -> dict[str, Any]:
    return {
        **to_plain(answer.backend),
        "hooks": list(answer.hooks),
        "offers": to_plain(answer.offers),
        "refusals": to_plain(answer.refusals),
    }

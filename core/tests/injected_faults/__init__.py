"""Faults of backends, injected one at a time: what each does, what is said of it, and what it may cost.

A backend named ``acme`` has the fault. ``steady`` runs the same model without it: each token depends on all tokens
before, so that an answer that goes on elsewhere is the healthy one only if not a token is lost, doubled or changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

FIRST_LETTER = 325
"""The id of ``a`` in the tests' Phi-3 tokenizer; those of the other letters follow."""
WHOLE = 160
"""Tokens of prompt and answer at which the model ends."""
PROMPT = "Hello world"
MODEL = f"""
import zlib

Engine.context_length = 512

def next_id(ids):
    return {FIRST_LETTER} + zlib.crc32(repr(ids).encode()) % 26

def healthy(request):
    ids = list(request.prompt_ids)
    while len(ids) < min({WHOLE}, len(request.prompt_ids) + request.max_new_tokens):
        ids.append(next_id(ids))
        yield ids[-1]

@hookimpl
def generate(engine, request):
    yield from healthy(request)
"""
"""What both backends are, below the parrot's source."""


@frozen(kw_only=True)
class Fault:
    """A fault, and its consequences where core has chosen the device, and where the user has named it."""

    changes: str
    """What makes the healthy backend a faulty one, below its source."""
    said: str = ""
    """The sentence on stderr if core chose the device; … stands for what differs. Empty if nothing is said."""
    named: str = ""
    """The error if the user named the device. By default the sentence, without the device that follows."""
    code: int = 5
    """The exit code if the user named the device. If it is 0, the answer is the healthy one there, too."""
    restarts: int = 0
    """How often the device is started again if the user named it."""
    device: str = "steady:CPU"
    """Where the answer ends if core chose the device."""
    most_s: float = 20.0
    """The seconds that it may cost, on a busy machine, apart from :attr:`waits_s`."""
    waits_s: float = 0.0
    """The seconds that are waited for the backend, by the limits."""
    limits: Mapping[str, str] = {}
    """Time limits, by their variables, that are shorter than the default ones."""
    max_new_tokens: int = 1024
    needs: str = ""
    """``signals`` if Windows has nothing like it."""
    quick: bool = False
    """Whether it is tried without ``--run-slow``, too."""

    @property
    def is_asked_anew(self) -> bool:
        """Whether the fault shows when backends are asked for devices, which is remembered otherwise."""
        return self.said.startswith("backend ")

    @property
    def lines(self) -> list[str]:
        """The lines on stderr if the user named the device: one for each start, and the error or a warning."""
        line = self.named or self.said.partition("; continuing with")[0]
        ends = self.code or self.said == line
        return [f"{line}; starting acme:CPU again"] * self.restarts + [line] * bool(line and ends)


def broken(error: str, **facts: Any) -> dict[str, Any]:
    """Return what is said of a backend that cannot be asked for its devices."""
    return {
        "said": f"backend acme (phi3-acme) is broken: {error}",
        "named": f"no device fits 'acme:CPU'; acme is broken: {error} (phi3 devices)",
        "code": 3,
        **facts,
    }


def fails(error: str, **facts: Any) -> dict[str, Any]:
    """Return what is said of a device that fails."""
    return {"said": f"acme:CPU: {error}; continuing with steady:CPU", **facts}


def pattern(sentence: str) -> re.Pattern[str]:
    """Return a pattern for a sentence of the table: systems say in different words how a process has ended."""
    text = re.escape(sentence).replace("…", ".*")
    text = text.replace(r"\(SIGABRT\)", r"\((SIGABRT|exit code 3|exit code 0xC0000409)\)")
    limited = r"(; its memory is limited to [^)]*)?"  # in a container
    return re.compile(text.replace(r"\(SIGKILL\)", rf"\((SIGKILL{limited}|exit code 9)\)"))

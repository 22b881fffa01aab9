"""Diagnostics for ``phi3 doctor``: the machine, installed packages, devices, and the findings of each backend.

Each backend is called in its own process, with a time limit (``PHI3_DIAGNOSE_LIMIT``, 30 s).
"""

from __future__ import annotations

import getpass
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from . import api, paths
from .config import time_limit
from .config.values import reported
from .disk import LONG_PATHS_HINT
from .distributions import canonical_name
from .errors import Phi3Error
from .machine import system_version
from .metadata import Distribution, distributions
from .plugin import ENTRY_POINT_GROUP, Broken
from .surveys import Answer, Survey, survey
from .toolchains.toolchain import path_problem
from .values import Finding, Progress, to_plain
from .worker.pool import WorkerPool

PROMPT = "What is the capital of France?"
_SEVEREST_FIRST = ("error", "warning", "info")


@frozen(kw_only=True)
class Diagnosis:
    """A finding and the backend that reported it."""

    backend: str
    finding: Finding


@frozen(kw_only=True)
class Trial:
    """The result of generating a short answer on one device."""

    device: str
    outcome: str
    """``answered``, or the error message."""
    text: str = ""
    load_s: float | None = None
    """Seconds until the engine was ready, including the time to obtain the model."""
    time_to_first_token_s: float | None = None
    decode_tokens_per_s: float | None = None


@frozen(kw_only=True)
class Diagnostics:
    """The results of all checks."""

    system: str
    python: str
    packages: Mapping[str, str]
    """Versions of phi3's distributions and of their installed requirements."""
    settings: Mapping[str, str]
    """Environment variables that begin with ``PHI3_``, and the settings of the configuration file."""
    survey: Survey
    diagnoses: tuple[Diagnosis, ...]
    broken: tuple[Broken, ...]
    """Backends whose ``diagnose`` hook failed."""
    trials: tuple[Trial, ...]


def run_diagnostics(progress: Progress, *, generate: str | None = None, offline: bool = False) -> Diagnostics:
    """Run all checks without using cached results.

    Args:
        progress: called with the current stage.
        generate: a model to generate a short answer with on every device; None skips this check.
        offline: use only files that are on this machine.
    """
    progress("asking the backends")
    found = survey(refresh=True)
    diagnoses, broken = _diagnose(found)
    diagnoses = (*_of_this_system(), *_of_metadata(), *diagnoses)
    return Diagnostics(
        system=system_version(),
        python=_python(),
        packages=packages(),
        settings=reported(),
        survey=found,
        diagnoses=diagnoses,
        broken=broken,
        trials=tuple(_try_all(found, generate, progress, offline=offline)) if generate else (),
    )


def _of_this_system() -> Iterator[Diagnosis]:
    """Yield findings about Windows that concern the store and every backend."""
    from . import windows  # start-up: ctypes

    if not windows.has_cpp_runtime():
        finding = Finding(severity="error", message=windows.CPP_RUNTIME_MISSING, remedy=windows.CPP_RUNTIME_REMEDY)
        yield Diagnosis(backend="core", finding=finding)
    if problem := path_problem():
        yield Diagnosis(backend="core", finding=Finding(severity="warning", message=problem, remedy=LONG_PATHS_HINT))


def _of_metadata() -> Iterator[Diagnosis]:
    """Yield the distributions whose metadata cannot be read. Those that may be backends are broken in the survey."""
    for each in distributions(ENTRY_POINT_GROUP, all_of_them=True)[1]:
        message = f"the metadata of an installed package cannot be read: {each.path} ({each.error})"
        finding = Finding(severity="warning", message=message, remedy="remove it, or install the package again")
        yield Diagnosis(backend="core", finding=finding)


def _python() -> str:
    """Return this Python's implementation, version and pointer size."""
    version = sys.version.split(maxsplit=1)[0]
    return f"{sys.implementation.name} {version}, {64 if sys.maxsize > 2**32 else 32}bit"


def packages() -> dict[str, str]:
    """Return the versions of phi3's distributions, then those of their direct and indirect installed requirements."""
    installed: dict[str, Distribution] = {}
    for distribution in distributions(ENTRY_POINT_GROUP, all_of_them=True)[0]:
        installed.setdefault(canonical_name(distribution.name), distribution)
    ours = sorted(
        name for name, distribution in installed.items() if name.startswith("phi3-") or distribution.entry_points
    )
    # Requirements of our own extras are included; those of other distributions' extras may be installed by chance.
    waiting = [_canonical(text) for name in ours for text in installed[name].requires]
    needed: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in installed and name not in needed and name not in ours:
            needed.add(name)
            waiting += [_canonical(text) for text in installed[name].requires if "extra ==" not in text]
    return {name: installed[name].version for name in (*ours, *sorted(needed))}


def _canonical(requirement: str) -> str:
    """Return the canonical name of the distribution that a requirement names."""
    return canonical_name(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])


def _diagnose(found: Survey) -> tuple[tuple[Diagnosis, ...], tuple[Broken, ...]]:
    asked = [answer for answer in found.answers if "diagnose" in answer.hooks]
    limit_s, started = time_limit("diagnose"), time.monotonic()
    diagnoses: list[Diagnosis] = []
    broken: list[Broken] = []
    workers = [WorkerPool().take(answer.backend) for answer in asked]
    try:
        for worker in workers:
            worker.begin("diagnose", machine=found.machine)
        for worker in workers:
            backend = worker.backend
            try:
                said = worker.finish(limit_s, since=started)
                diagnoses += [Diagnosis(backend=backend.name, finding=Finding(**item)) for item in said]
            except Phi3Error as error:
                broken.append(Broken(plugin=backend.name, distribution=backend.distribution, error=error.message))
    finally:
        for worker in workers:
            worker.kill()
    diagnoses.sort(key=lambda one: _SEVEREST_FIRST.index(one.finding.severity))
    return tuple(diagnoses), tuple(broken)


def _try_all(found: Survey, model: str, progress: Progress, *, offline: bool) -> Iterator[Trial]:
    """Try each device, except those that are used only when named."""
    for offer in found.offers:
        if offer.automatic:
            progress(f"generating on {offer.device}")
            yield _try(model, str(offer.device), progress, offline=offline)


def _try(model: str, device: str, progress: Progress, *, offline: bool) -> Trial:
    started = time.monotonic()
    try:
        with api.load(model, device=device, purpose="answer", progress=progress, offline=offline) as loaded:
            ready = time.monotonic()
            reply = loaded.generate(PROMPT, max_new_tokens=32)
    except Phi3Error as error:
        return Trial(device=device, outcome=str(error))
    return Trial(
        device=device,
        outcome="answered",
        text=reply.text,
        load_s=ready - started,
        time_to_first_token_s=reply.time_to_first_token_s,
        decode_tokens_per_s=reply.decode_tokens_per_s,
    )


def report(diagnostics: Diagnostics) -> dict[str, Any]:
    """Return diagnostics as JSON-compatible data, made anonymous by :func:`anonymous`."""
    document = to_plain(diagnostics)
    document["survey"]["answers"] = [_plain_answer(answer) for answer in diagnostics.survey.answers]
    private = anonymous(document)
    assert isinstance(private, dict)
    return private


def _plain_answer(answer: Answer) -> dict[str, Any]:
    return {
        **to_plain(answer.backend),
        "hooks": list(answer.hooks),
        "offers": to_plain(answer.offers),
        "refusals": to_plain(answer.refusals),
    }


def anonymous(content: Any) -> Any:
    """Return ``content`` with the home folder, the store's folder and the user's name replaced in all strings."""
    return _replaced(content, list(_private()))


def _private() -> Iterator[tuple[re.Pattern[str], str]]:
    folders = {str(paths.home()): "<store>", str(Path.home()): "~"}
    for folder in sorted(folders, key=len, reverse=True):
        if len(folder) > len(Path(folder).anchor):
            # Matches the whole folder only, not the beginning or a part of another path.
            text = rf"(?<![\w.~/\\-]){re.escape(folder)}(?![\w.-])"
            yield re.compile(text, re.IGNORECASE if os.name == "nt" else 0), folders[folder]
    try:
        name = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a user without a name, as in some containers
        return
    # Only as a path component: a user name may be an ordinary word.
    yield re.compile(rf"(?<=[\\/]){re.escape(name)}(?=[\\/]|$)"), "<user>"


def _replaced(content: Any, patterns: list[tuple[re.Pattern[str], str]]) -> Any:
    if isinstance(content, str):
        for pattern, word in patterns:
            content = pattern.sub(word, content)
        return content
    if isinstance(content, dict):
        return {key: _replaced(value, patterns) for key, value in content.items()}
    return [_replaced(item, patterns) for item in content] if isinstance(content, list) else content

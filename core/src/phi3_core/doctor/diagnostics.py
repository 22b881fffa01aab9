"""All that ``phi3 doctor`` finds out: the machine, what is installed, the devices, and whether they generate."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from attrs import frozen

from phi3_core import hardware, windows
from phi3_core.config.values import reported
from phi3_core.disk import LONG_PATHS_HINT
from phi3_core.errors import BackendError, ModelError, NoDeviceError
from phi3_core.machine import system_version
from phi3_core.models.ref import look_up
from phi3_core.plugin import Broken
from phi3_core.store.store import Store
from phi3_core.surveys import Survey, survey
from phi3_core.toolchains.toolchain import path_problem
from phi3_core.values import Finding, Progress

from . import conflicts, permissions, resources
from .findings import CORE, Diagnosis, ask_backends, severest_first
from .privacy import without_secrets
from .resources import Resources
from .trials import Trial, Trials
from .versions import Installed, Stack, read_installed

INTERRUPTED = 130


@frozen(kw_only=True)
class Diagnostics:
    """The results of all checks."""

    system: str
    python: str
    resources: Resources
    stacks: tuple[Stack, ...]
    """Phi3's distributions and those of backends, each with the versions of what it requires."""
    packages: Mapping[str, str]
    """The same versions in one table."""
    settings: Mapping[str, str]
    """Environment variables that begin with ``PHI3_``, and the settings of the configuration file, without secrets."""
    survey: Survey
    diagnoses: tuple[Diagnosis, ...]
    """What core and the backends have found, the severest first."""
    broken: tuple[Broken, ...]
    """Backends whose ``diagnose`` hook failed."""
    trials: tuple[Trial, ...]
    """What generating has shown, the best device first."""
    generated: bool
    """Whether generating was asked for."""
    interrupted: bool = False
    """Whether Ctrl-C has ended the trials."""

    @property
    def exit_code(self) -> int:
        """The exit code of the command: 0 if all is well, 5 if something works and something does not.

        If nothing works it is 3; 4 if no weights could be had, so that nothing was tried.
        """
        if self.interrupted:
            return INTERRUPTED
        verdicts = {trial.verdict for trial in self.trials}
        if self.generated and "works" not in verdicts:
            return ModelError.exit_code if verdicts == {"untried"} else NoDeviceError.exit_code
        if not self.survey.offers:
            return NoDeviceError.exit_code
        errors = any(each.finding.severity == "error" for each in self.diagnoses)
        is_partial = bool(verdicts & {"wrong", "dead", "refused"} or self.survey.broken or self.broken or errors)
        return BackendError.exit_code if is_partial else 0


def run_diagnostics(
    progress: Progress, *, generate: bool = True, model: str | None = None, device: str = "auto", offline: bool = False
) -> Diagnostics:
    """Run all checks without using cached results.

    Args:
        progress: called with the current stage.
        generate: whether to generate a short answer on each device.
        model: the model to generate with; see :class:`.Trials`.
        device: the devices to generate on; see :class:`.Trials`.
        offline: use only files that are on this machine.

    Raises:
        UsageError, ModelError, NoDeviceError: as :meth:`.Trials.run`.
    """
    if model is not None and generate:
        look_up(model, Store())  # raises before anything takes time
    progress("asking the backends")
    found = survey(refresh=True)
    diagnoses, broken = ask_backends(found)
    installed, here = read_installed(), resources.read_resources()
    own = (*_of_system(found, here), *_of_installed(installed, diagnoses))
    trials: list[Trial] = []
    interrupted = False
    if generate:
        try:
            trials.extend(Trials(found=found, model=model, device=device, offline=offline, progress=progress).run())
        except KeyboardInterrupt:
            interrupted = True
    return Diagnostics(
        system=system_version(),
        python=_python(),
        resources=here,
        stacks=installed.stacks(),
        packages=installed.packages(),
        settings=without_secrets(reported()),
        survey=found,
        diagnoses=severest_first((*(Diagnosis(backend=CORE, finding=each) for each in own), *diagnoses)),
        broken=broken,
        trials=tuple(trials),
        generated=generate,
        interrupted=interrupted,
    )


def _of_system(found: Survey, here: Resources) -> Iterator[Finding]:
    """Yield what concerns the machine, its system and the store."""
    if not windows.has_cpp_runtime():
        yield Finding(severity="error", message=windows.CPP_RUNTIME_MISSING, remedy=windows.CPP_RUNTIME_REMEDY)
    if problem := path_problem():
        yield Finding(severity="warning", message=problem, remedy=LONG_PATHS_HINT)
    names = {answer.backend.distribution for answer in found.answers}
    names |= {broken.distribution for broken in found.broken}
    kinds = {offer.device.kind for offer in found.offers}
    there = hardware.present()
    for each, remedy in hardware.without_backend(there, found.machine.os, installed=names, kinds=kinds):
        yield Finding(severity="warning", message=f"no installed backend is for {each.name}", remedy=remedy)
    yield from permissions.findings(found.machine.os, permissions.read_nodes())
    yield from resources.findings(here)


def _of_installed(installed: Installed, said: tuple[Diagnosis, ...]) -> Iterator[Finding]:
    """Yield conflicts between what is installed, apart from those that a backend has named itself."""
    named = {each.finding.message for each in said if each.finding.severity == "error"}
    yield from (each for each in conflicts.conflicts(installed) if each.message not in named)


def _python() -> str:
    """Return this Python's implementation, version and pointer size."""
    version = sys.version.split(maxsplit=1)[0]
    return f"{sys.implementation.name} {version}, {64 if sys.maxsize > 2**32 else 32}bit"

"""The results as text for people: what a terminal shows, and the report, which has all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from phi3_core.plugin import Broken
from phi3_core.units import format_bytes
from phi3_core.values import Finding

from .diagnostics import Diagnostics
from .findings import CORE
from .trials import Trial
from .versions import Stack

_NOT_WELL = ("warning", "error")


def lines(found: Diagnostics, *, detailed: bool = False) -> Iterator[str]:
    """Yield the lines of a text.

    Args:
        found: the results.
        detailed: whether it has everything: indirect requirements, and what processes that died have printed.
    """
    yield from _section("machine", _machine(found))
    for stack in found.stacks:
        backends = f" ({', '.join(stack.backends)})" if stack.backends else ""
        yield from _section(f"{stack.distribution} {stack.version}{backends}", _stack(found, stack, detailed=detailed))
    yield from _section("devices", _devices(found, detailed=detailed))
    yield from _section("problems", _problems(found))
    yield conclusion(found)


def conclusion(found: Diagnostics) -> str:
    """Return one sentence that sums it up."""
    if found.interrupted:
        return "interrupted: not every device was tried"
    if not found.survey.offers:
        return "nothing works: there is no usable device"
    text = _trials(found) if found.generated else "nothing was generated"
    problems = sum(each.finding.severity in _NOT_WELL for each in found.diagnoses) + len(_broken(found))
    return f"{text}; {_count(problems, 'problem')} above" if problems else text


def _trials(found: Diagnostics) -> str:
    total, verdicts = len(found.trials), [trial.verdict for trial in found.trials]
    works, untried = verdicts.count("works"), verdicts.count("untried")
    if not total:
        return "nothing was tried: each of the devices has to be named with --device"
    if untried == total:
        return "nothing was tried: there are no weights to try with"
    if not works:
        return "nothing works"
    left_out = f", {untried} not tried" if untried else ""
    return "every device works" if works == total else f"{works} of {_count(total, 'trial')} worked{left_out}"


def _section(title: str, content: Iterator[str]) -> Iterator[str]:
    """Yield a section, or nothing if it is empty."""
    inner = [f"  {line}" for line in content]
    if inner:
        yield from (title, *inner, "")


def _machine(found: Diagnostics) -> Iterator[str]:
    machine, here = found.survey.machine, found.resources
    power = ", on battery" if machine.on_battery else ""
    yield f"{found.system}, {machine.architecture}{power}"
    yield found.python
    usable = f", of which {here.usable_processors} can be used" if here.usable_processors < here.processors else ""
    yield f"processors: {here.processors}{usable}"
    limit = here.memory_limit_bytes
    allowed = f"; a control group allows {format_bytes(limit)}" if limit is not None else ""
    yield f"memory: {format_bytes(here.memory_bytes)}, {format_bytes(here.memory_available_bytes)} available{allowed}"
    free = format_bytes(here.store_free_bytes) or "an unknown amount"
    yield f"store: {here.store}, {free} free"
    yield from (f"{each.message}{_remedy(each.remedy)}" for each in _findings(found, CORE, "info"))
    yield from (f"{name}={value}" for name, value in found.settings.items())


def _stack(found: Diagnostics, stack: Stack, *, detailed: bool) -> Iterator[str]:
    if stack.runtime:
        yield f"runs on {_versions(stack.runtime)}"
    if stack.others and detailed:
        yield f"which require {_versions(stack.others)}"
    elif stack.others:
        yield f"and {_count(len(stack.others), 'package')} that these require (--report FILE lists them)"
    for answer in found.survey.answers:
        if answer.backend.name not in stack.backends or answer.backend.distribution != stack.distribution:
            continue
        for offer in answer.offers:
            device = offer.device
            driver = f", driver {device.driver}" if device.driver else ""
            asked = "" if offer.automatic else "; only when named"
            precisions = " ".join(offer.precisions)
            yield f"usable: {device} ({device.kind}): {device.name}{driver}; {precisions}{asked}"
        problems = {each.message for severity in _NOT_WELL for each in _findings(found, answer.backend.name, severity)}
        for refusal in answer.refusals:
            if refusal.reason not in problems:
                yield f"not usable: {refusal.reason}{_remedy(refusal.remedy)}"
        told = {refusal.reason for refusal in answer.refusals}
        yield from (
            f"{each.message}{_remedy(each.remedy)}"
            for each in _findings(found, answer.backend.name, "info")
            if each.message not in told
        )


def _devices(found: Diagnostics, *, detailed: bool) -> Iterator[str]:
    for trial in found.trials:
        yield f"{trial.verdict}: {trial.device} {trial.precision}, {trial.model}: {_outcome(trial)}"
        if trial.remedy:
            yield f"  -> {trial.remedy}"
        if detailed:
            yield from (f"  | {line}" for line in trial.last_lines)


def _outcome(trial: Trial) -> str:
    if trial.verdict != "works":
        return trial.error
    figures = [f"loaded in {trial.load_s:.1f} s"] if trial.load_s is not None else []
    if trial.time_to_first_token_s is not None:
        figures.append(f"first token after {trial.time_to_first_token_s:.2f} s")
    if trial.decode_tokens_per_s is not None:
        figures.append(f"{trial.decode_tokens_per_s:.1f} tokens/s")
    figures.append("known answers agree" if trial.is_compared else "there are no known answers to compare with")
    return f"{', '.join(figures)}; it said {' '.join(trial.text.split())!r}"


def _problems(found: Diagnostics) -> Iterator[str]:
    for broken in _broken(found):
        yield f"broken: {broken.plugin} ({broken.distribution}): {broken.error}{_remedy(_mend(broken))}"
    if not found.survey.answers and not found.survey.broken:
        yield "no backend is installed -> pip install phi3-openvino"
    for one in found.diagnoses:
        if one.finding.severity in _NOT_WELL:
            yield f"{one.finding.severity}: {one.backend}: {one.finding.message}{_remedy(one.finding.remedy)}"


def _mend(broken: Broken) -> str:
    """Return what mends a broken backend; empty if its error says so by itself."""
    if any(word in broken.error for word in ("upgrade", "uninstall", "cannot be read")):
        return ""
    return f"pip install --upgrade {broken.distribution}, or pip uninstall {broken.distribution}"


def _broken(found: Diagnostics) -> tuple[Broken, ...]:
    return (*found.survey.broken, *found.broken)


def _findings(found: Diagnostics, backend: str, severity: str) -> Iterator[Finding]:
    for one in found.diagnoses:
        if one.backend == backend and one.finding.severity == severity:
            yield one.finding


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _remedy(text: str) -> str:
    return f" -> {text}" if text else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

"""The table of injected faults: each met from Python, by command and over HTTP, if core chose and if the user did.

``--write-faults`` writes the table to the guide, with the seconds that each fault has cost.
"""

from __future__ import annotations

import io
import shutil
import sys
import time
from pathlib import Path

import psutil
import pytest
from injected_faults import MODEL, WHOLE, Fault, pattern
from injected_faults.page import PAGE, lost_s, page
from injected_faults.surfaces import SURFACES, Outcome, Question, ask, half_written
from injected_faults.table import ROWS
from phi3_core.figures import failures
from phi3_core.store.store import Store

PARAMETERS = [pytest.param(name, marks=() if fault.quick else pytest.mark.slow) for name, fault in ROWS.items()]


class Healthy:
    """The healthy backend alone: the model, a store that has it, and its answers."""

    def __init__(self, source: Path, home: Path) -> None:
        self.source, self.home = source, home
        self._answers: dict[tuple[object, ...], Outcome] = {}

    def answer(self, surface: str, fault: Fault, main, *, anew: bool = False) -> Outcome:
        """What the healthy backend says by a surface, and in how many seconds; ``anew`` measures it again."""
        key = (surface, fault.max_new_tokens, fault.is_asked_anew)
        if anew or key not in self._answers:
            question = Question(source=self.source, device="auto", max_new_tokens=fault.max_new_tokens)
            self._answers[key] = min(
                (ask_anew(surface, question, fault, main) for _ in range(3 if anew else 1)), key=seconds
            )
        return self._answers[key]


def seconds(outcome: Outcome) -> float:
    return outcome.seconds


def ask_anew(surface: str, question: Question, fault: Fault, main) -> Outcome:
    """Ask as if it were the first time, as far as the fault is concerned."""
    failures.clear_all()
    if fault.is_asked_anew:
        (Store().root / "survey.json").unlink(missing_ok=True)
    return ask(surface, question, main)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory, write_source):
    source = write_source(tmp_path_factory.mktemp("healthy") / "tiny")
    return Healthy(source, source.parent / "home")


@pytest.fixture
def alone(healthy, plugins, home, run_main, monkeypatch):
    """The healthy backend installed, in a store that has its model."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    plugins.add("steady", changes=MODEL)
    if healthy.home.exists():
        shutil.copytree(healthy.home, home, ignore=shutil.ignore_patterns("survey.json"))
    else:
        ask("api", Question(source=healthy.source, device="steady", max_new_tokens=1), run_main)
        shutil.copytree(home, healthy.home)
    return healthy


@pytest.fixture(scope="module")
def writes(request):
    """Whether the page of the guide is written."""
    return request.config.getoption("--write-faults")


@pytest.fixture(scope="module")
def lost(writes):
    """Collects the seconds that each fault has cost, for the page of the guide; it has those of earlier runs."""
    found = lost_s(PAGE.read_text(encoding="utf-8"))
    yield found
    if writes:
        PAGE.write_text(page(found), encoding="utf-8", newline="\n")


def processes(site: Path) -> set[int]:
    """The processes that run below this one, and those that backends have started."""
    found = {each.pid for each in psutil.Process().children(recursive=True)}
    started = [int(number) for file in site.glob("*.pid") for number in file.read_text(encoding="utf-8").split()]
    return {number for number in found.union(started) if is_running(number)}


def is_running(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_said(lines: tuple[str, ...], *sentences: str) -> bool:
    """Whether these sentences are all that is said."""
    return len(lines) == len(sentences) and all(
        pattern(sentence).fullmatch(line) for sentence, line in zip(sentences, lines, strict=True)
    )


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_fault_costs_a_sentence_and_time_and_not_the_answer(
    name, surface, alone, plugins, home, run_main, lost, writes, monkeypatch
):
    fault = ROWS[name]
    if fault.needs == "signals" and sys.platform == "win32":
        pytest.skip("Windows stops no process")
    right, before = alone.answer(surface, fault, run_main, anew=writes), processes(plugins.site)
    plugins.add("acme", changes=MODEL + fault.changes)
    for variable, limit in fault.limits.items():
        monkeypatch.setenv(variable, limit)

    def ask_for(device):
        question = Question(source=alone.source, device=device, max_new_tokens=fault.max_new_tokens)
        return ask_anew(surface, question, fault, run_main)

    # For the page the fastest of three, since other programs disturb what is measured.
    chosen = min((ask_for("auto") for _ in range(3 if writes else 1)), key=seconds)
    assert (chosen.code, chosen.text, chosen.device) == (0, right.text, fault.device), chosen
    assert is_said(chosen.said, *filter(None, [fault.said])), chosen.said
    cost_s = chosen.seconds - right.seconds
    assert cost_s < fault.waits_s + fault.most_s
    if surface == "cli":
        lost[name] = cost_s

    named = ask_for("acme:CPU")
    assert named.code == fault.code, named
    assert right.text.startswith(named.text)
    assert is_said(named.said, *fault.lines), named.said
    assert fault.code or named.text == right.text

    deadline = time.monotonic() + 5
    while (left := processes(plugins.site) - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left
    assert half_written(home) == []


FILLS = """
@hookimpl
def quantize(output):
    with (output / "weights.bin").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(100_000))
"""


@pytest.mark.parametrize("surface", SURFACES)
def test_a_disk_that_is_really_filled_is_free_again(surface, alone, plugins, home, run_main, make_disk, monkeypatch):
    right = alone.answer(surface, Fault(changes=""), run_main)
    disk = make_disk(2**21)
    shutil.copytree(home, disk / "home")
    monkeypatch.setenv("PHI3_HOME", str(disk / "home"))
    plugins.add("acme", changes=MODEL + FILLS)
    free = shutil.disk_usage(disk).free
    found = ask(surface, Question(source=alone.source, device="auto", max_new_tokens=1024), run_main)
    assert (found.code, found.text, found.device) == (0, right.text, "steady:CPU")
    words = f"acme:CPU: no space is left on the disk of {disk}…; continuing with steady:CPU"
    assert is_said(found.said, words), found.said
    assert half_written(disk / "home") == []
    assert shutil.disk_usage(disk).free > free - 100_000


@pytest.mark.slow
@pytest.mark.parametrize("surface", SURFACES)
def test_a_store_that_cannot_be_written_still_has_what_is_in_it(
    surface, alone, plugins, home, run_main, make_disk, make_read_only, monkeypatch
):
    right = alone.answer(surface, Fault(changes=""), run_main)
    disk = make_disk(2**21)
    shutil.copytree(home, disk / "home")
    make_read_only(disk)
    monkeypatch.setenv("PHI3_HOME", str(disk / "home"))
    plugins.add("acme", changes=MODEL)
    found = ask(surface, Question(source=alone.source, device="auto", max_new_tokens=1024), run_main)
    assert (found.code, found.text, found.device) == (0, right.text, "steady:CPU")
    words = "acme:CPU: the store … cannot be written: …; continuing with steady:CPU"
    assert is_said(found.said, words), found.said


@pytest.mark.parametrize("surface", SURFACES)
def test_the_healthy_answer_has_more_than_a_hundred_tokens(surface, alone, run_main):
    right = alone.answer(surface, Fault(changes=""), run_main)
    assert (right.code, right.said, right.device) == (0, (), "steady:CPU")
    assert right.text.isalpha()
    assert 100 < len(right.text) < WHOLE


def test_the_page_of_the_guide_has_the_table():
    written = PAGE.read_text(encoding="utf-8")
    assert written == page(lost_s(written)), "python -m pytest core/tests/faults --run-slow --write-faults"

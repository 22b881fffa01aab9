"""The exit code and the last sentence, and lines that need a special machine."""

from __future__ import annotations

import pytest
from attrs import evolve
from phi3_core.doctor.diagnostics import Diagnostics
from phi3_core.doctor.findings import Diagnosis
from phi3_core.doctor.resources import Resources
from phi3_core.doctor.text import conclusion, lines
from phi3_core.doctor.trials import Trial
from phi3_core.doctor.versions import Stack
from phi3_core.plugin import Backend, Broken
from phi3_core.surveys import Answer, Survey
from phi3_core.values import Device, Finding, Machine, Offer, Refusal

GB = 10**9
BROKEN = (Broken(plugin="b", distribution="phi3-b", error="no such DLL"),)
OFFER = Offer(device=Device(backend="a", id="0", kind="gpu", name="A card", driver="7"), precisions=["fp16"])


def diagnostics(*verdicts, offers=(OFFER,), broken=(), severity="info", **changes):
    backend = Backend(name="a", target="a", distribution="phi3-a", version="1")
    answer = Answer(backend=backend, hooks=(), offers=offers, refusals=(Refusal(reason="no NPU"),))
    machine = Machine(os="linux", architecture="x86_64", memory_bytes=2 * GB, on_battery=True)
    found = Diagnostics(
        system="Linux 6",
        python="cpython 3",
        resources=Resources(
            memory_bytes=64 * GB,
            memory_available_bytes=GB,
            memory_limit_bytes=2 * GB,
            processors=16,
            usable_processors=2,
            store="/x",
            store_free_bytes=None,
        ),
        stacks=(
            Stack(distribution="phi3-a", version="1", backends=("a",), runtime={"r": "1"}, others={"o": "1", "p": "2"}),
        ),
        packages={},
        settings={},
        survey=Survey(machine=machine, answers=(answer,), broken=broken),
        diagnoses=(Diagnosis(backend="a", finding=Finding(severity=severity, message="no NPU")),),
        broken=(),
        trials=tuple(Trial(device="a:0", precision="fp16", model="m", verdict=each, error="e") for each in verdicts),
        generated=True,
    )
    return evolve(found, **changes)


@pytest.mark.parametrize(
    ("found", "code", "words"),
    [
        (diagnostics("works"), 0, "every device works"),
        (diagnostics("works", severity="warning"), 0, "every device works; 1 problem above"),
        (diagnostics("works", severity="error"), 5, "every device works; 1 problem above"),
        (diagnostics("works", broken=BROKEN), 5, "every device works; 1 problem above"),
        (diagnostics("works", "dead"), 5, "1 of 2 trials worked"),
        (diagnostics("wrong", "works", "untried"), 5, "1 of 3 trials worked, 1 not tried"),
        (diagnostics("works", "untried"), 0, "1 of 2 trials worked, 1 not tried"),
        (diagnostics("dead", "wrong", "untried"), 3, "nothing works"),
        (diagnostics("untried"), 4, "nothing was tried: there are no weights to try with"),
        (diagnostics(), 3, "nothing was tried: each of the devices has to be named with --device"),
        (diagnostics(offers=()), 3, "nothing works: there is no usable device"),
        (diagnostics(generated=False), 0, "nothing was generated"),
        (diagnostics(generated=False, broken=BROKEN), 5, "nothing was generated; 1 problem above"),
        (diagnostics(generated=False, offers=()), 3, "nothing works: there is no usable device"),
        (diagnostics("works", interrupted=True), 130, "interrupted: not every device was tried"),
    ],
)
def test_the_exit_code_and_the_last_sentence(found, code, words):
    assert (found.exit_code, conclusion(found)) == (code, words)


def test_limits_of_a_control_group_and_drivers_are_shown():
    shown = [line.strip() for line in lines(diagnostics("works"))]
    assert "Linux 6, x86_64, on battery" in shown
    assert "processors: 16, of which 2 can be used" in shown
    assert "memory: 64.0 GB, 1.0 GB available; a control group allows 2.0 GB" in shown
    assert "store: /x, an unknown amount free" in shown
    assert "usable: a:0 (gpu): A card, driver 7; fp16" in shown
    assert shown.count("not usable: no NPU") == 1
    assert "no NPU" not in shown


def test_a_refusal_that_is_a_problem_is_shown_as_one():
    shown = [line.strip() for line in lines(diagnostics("works", severity="error"))]
    assert "error: a: no NPU" in shown
    assert not [line for line in shown if line.startswith("not usable")]


def test_the_report_lists_what_a_terminal_counts():
    assert "  and 2 packages that these require (--report FILE lists them)" in lines(diagnostics())
    assert "  which require o 1, p 2" in lines(diagnostics(), detailed=True)

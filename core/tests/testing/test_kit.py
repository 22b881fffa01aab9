"""The kit on backends in numpy: a good one passes, and each fault fails the tests that name it."""

from __future__ import annotations

import pytest
from wrong_backends import FAULTS, Fault

HEAD = "from phi3_core.testing import BackendContract\n"
FP16 = 'precisions = ("fp16",)'
THREE_LINES = f"""
{HEAD}
class TestGood(BackendContract):
    backend = "good"
"""

OTHER_WAYS = {
    "writes-a-subfolder": """
@hookimpl
def load(artifact, options):
    from attrs import evolve
    from phi3_core.backend import Checkpoint, read_limits

    if options:
        raise UsageError("there are no options")
    checkpoint = Checkpoint.open(artifact.path / "weights")
    return Engine(evolve(checkpoint, path=artifact.path), read_limits(artifact))

@hookimpl
def quantize(source, recipe, output, progress):
    import shutil
    from phi3_core.backend import Checkpoint

    check_recipe(recipe, Checkpoint.open(source.path))
    (output / "weights").mkdir()
    shutil.copyfile(source.path / "config.json", output / "weights" / "config.json")
    return ORIGINAL["quantize"](source, recipe, output / "weights", progress)

@hookimpl
def recognize(path):
    return ORIGINAL["recognize"](path / "weights")
""",
    "prints-at-the-end": """
import atexit

print("good: hello", end="")
atexit.register(print, "good: bye")
""",
}
"""Good backends that do something in another way, and pass."""


def suite(faults, *, whole=False):
    """A class of tests for each fault, with the parts of the contract that name it, or with all of them."""
    text = HEAD
    for name, fault in faults.items():
        text += f"\nclass Test_{name.replace('-', '_')}(BackendContract):\n    backend = {name!r}\n"
        text += f"    {fault.settings or FP16}\n"
        text += "" if whole else f"    only = {fault.tests.split()}\n"
    return text


def failures(run, name):
    """The tests that failed, apart from those that need what failed in another."""
    kind = f"Test_{name.replace('-', '_')}"
    return {
        each.name.partition("[")[0]
        for each in run.outcomes
        if each.backend == kind and each.outcome == "failed" and each.when == "call"
    }


@pytest.fixture(params=FAULTS)
def faults(request, monkeypatch):
    """Backends of one kind of fault."""
    if request.param == "import":
        monkeypatch.setenv("PHI3_DETECT_LIMIT", "3")
    return FAULTS[request.param]


def check(run_kit, faults, *, whole=False):
    changes = {name: fault.changes for name, fault in faults.items()}
    alike = not any("def quantize" in each or "def rounded" in each for each in changes.values())
    run = run_kit(changes, suite(faults, whole=whole), measured=False, alike=alike)
    found = {name: failures(run, name) for name in faults}
    assert found == {name: set(fault.tests.split()) for name, fault in faults.items()}, run.output[-6000:]


def test_a_good_backend_passes(run_kit):
    found = run_kit({"good": ""}, THREE_LINES)
    assert found.code == 0, found.output[-3000:]
    assert {each.outcome for each in found.outcomes} == {"passed"}
    assert len(found.outcomes) > 100


def test_good_backends_of_other_ways_pass(run_kit):
    tests = {
        "writes-a-subfolder": "test_load_makes_an_engine",
        "prints-at-the-end": "test_importing_the_plugin_loads_no_native_library",
    }
    found = run_kit(OTHER_WAYS, suite({name: Fault(test, "") for name, test in tests.items()}), measured=False)
    assert found.code == 0, found.output[-3000:]
    assert {each.outcome for each in found.outcomes} == {"passed"}


def test_each_fault_fails_the_tests_that_name_it(run_kit, faults):
    check(run_kit, faults)


@pytest.mark.slow
def test_each_fault_fails_no_other_test(run_kit, faults):
    check(run_kit, faults, whole=True)

"""``phi3 plugins check``: a table for people, JSON, JUnit's form, and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

WRONG = """
@hookimpl
def quantize(progress):
    progress("pretending")
"""


def test_a_fault_is_shown_with_its_test(run_main, add, tmp_path):
    add("wrong", WRONG)
    report = tmp_path / "report.xml"
    code, out, _ = run_main("plugins", "check", "WRONG", "-d", "wrong:CPU", "-p", "fp16", "-q", "--junit", report)
    assert code == 5
    (line,) = [line for line in out.splitlines() if line.startswith(" failed")]
    assert "test_quantize_fills_its_output[fp16]" in line
    assert "1 failed" in out.splitlines()[-1]
    (suite,) = ET.parse(report).getroot()
    assert suite.get("failures") == "1"


def test_what_has_no_device_here_exits_with_3(run_main, add):
    add("absent", "@hookimpl\ndef detect(machine):\n    return [Refusal(reason='there is no NPU')]\n")
    code, out, err = run_main("plugins", "check", "absent", "-q", "--json")
    assert code == 3
    assert "a device of absent is not usable here: there is no NPU" in err
    found = json.loads(out)
    assert (found["backend"], found["distribution"], found["failed"], found["blocked"]) == (
        *("absent", "phi3-absent"),
        *(0, 0),
    )
    assert {test["outcome"] for test in found["tests"]} == {"passed", "skipped"}


def test_what_loads_no_engine_exits_with_3(run_main, add):
    add("ready", "del quantize")
    code, _, err = run_main("plugins", "check", "ready", "-q", "-p", "fp16")
    assert code == 3
    assert "ready does not implement quantize, which makes the models of the tests" in err


QUIRKY = """
@hookimpl
def detect(machine):
    return [Refusal(reason="there is no NPU" + chr(10) + "at line 5")]
"""
OWN_TESTS = """
from phi3_core.testing import BackendContract

class TestQuirky(BackendContract):
    backend = "quirky"
    quirks = {
        "test_refusals_have_one_line": "the driver says so",
        "test_memory_is_in_bytes": "it has its own units",
    }

    def test_memory_is_in_bytes(self):
        assert self.backend == "quirky"
"""


@pytest.fixture
def name_tests(plugins):
    """Let a distribution name a class of tests for the backend ``quirky``."""

    def name_tests(distribution, target):
        info = plugins.site / f"{distribution}-1.0.dist-info"
        with (info / "entry_points.txt").open("a", encoding="utf-8") as file:
            file.write(f"[phi3_testing]\nquirky = {target}\n")
        (plugins.site / "quirky_contract.py").write_text(OWN_TESTS, encoding="utf-8")

    return name_tests


def test_the_tests_that_a_distribution_names_bring_their_quirks(run_main, add, name_tests):
    add("quirky", QUIRKY)
    name_tests("phi3_quirky", "quirky_contract:TestQuirky")
    code, out, err = run_main("plugins", "check", "quirky", "-q")
    assert code == 3, out
    assert "there is no NPU" in err
    rows = [line.split(None, 2) for line in out.splitlines() if line.startswith(" quirk")]
    assert [(name, reason.strip()) for _, name, reason in rows] == [
        ("test_refusals_have_one_line", "the driver says so"),
        ("test_memory_is_in_bytes", "it has its own units"),
    ]
    assert " 1 quirk, " in out.splitlines()[-1]


def test_quirks_that_another_distribution_names_do_not_count(run_main, add, name_tests):
    add("quirky", QUIRKY)
    add("other")
    name_tests("phi3_other", "quirky_contract:TestQuirky")
    code, out, _ = run_main("plugins", "check", "quirky", "-q", "--json")
    assert code == 5
    found = json.loads(out)
    assert (found["failed"], found["quirk"]) == (1, 0)
    assert {test["quirk"] for test in found["tests"]} == {""}


def test_what_is_named_and_is_no_contract_is_said(run_main, add, name_tests):
    add("quirky", QUIRKY)
    name_tests("phi3_quirky", "pathlib:Path")
    code, _, err = run_main("plugins", "check", "quirky", "-q")
    assert code == 5
    assert "TypeError: pathlib:Path of phi3-quirky is no subclass of BackendContract" in err


def test_what_cannot_be_imported_is_a_failure(run_main, add):
    add("broken", "import no_such_module_of_phi3")
    code, out, _ = run_main("plugins", "check", "broken", "-q", "--json")
    assert code == 5
    found = json.loads(out)
    failed = {test["name"] for test in found["tests"] if test["outcome"] == "failed"}
    assert failed == {
        "test_importing_the_plugin_loads_no_native_library",
        "test_the_hooks_are_those_of_the_contract",
    }
    assert found["blocked"] > 50


def test_an_unknown_backend_is_a_usage_error(run_main, plugins):
    code, _, err = run_main("plugins", "check", "nothing")
    assert code == 2
    assert "there is no backend 'nothing'" in err


WITHOUT_PYTEST = """
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: None if name.lstrip("_") == "pytest" else find(name, *more)
from phi3_core.cli import main
sys.exit(main(["plugins", "check", "any"]))
"""


def test_without_pytest_the_hint_says_what_to_install():
    done = subprocess.run([sys.executable, "-c", WITHOUT_PYTEST], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'the tests need pytest, which is not installed (pip install "phi3-core[testing]")' in done.stderr


def test_without_a_verb_the_plugins_are_listed(run_main, add):
    add("good")
    code, out, _ = run_main("plugins", "--json")
    assert code == 0
    assert "good" in [each["plugin"] for each in json.loads(out)["plugins"]]

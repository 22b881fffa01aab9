"""The class of the contract: quirks, what is replaced, what is skipped, and ``--require-backend``."""

from __future__ import annotations

import pytest
from phi3_core.testing import BackendContract

PLUGIN = ("-p", "phi3_core.testing.plugin")
BACKENDS = {
    "good": "",
    "wordy": """
@hookimpl
def detect(machine):
    return [*ORIGINAL["detect"](machine), Refusal(reason="no GPU" + chr(10) + "at line 5")]
""",
    "refusing": "@hookimpl\ndef detect(machine):\n    return [Refusal(reason='there is no NPU', remedy='buy one')]\n",
    "raising": "@hookimpl\ndef detect(machine):\n    raise OSError('no driver')\n",
}
TESTS = """
from phi3_core.testing import BackendContract

class TestQuirk(BackendContract):
    backend = "wordy"
    quirks = {"test_refusals_have_one_line": "the driver says so"}
    only = ["test_detect_is_fast"]

class TestQuirkThatIsGone(BackendContract):
    backend = "good"
    quirks = {"test_refusals_have_one_line": "the driver says so"}
    only = ["test_detect_is_fast"]

class TestReplaced(BackendContract):
    backend = "wordy"
    quirks = {"test_refusals_have_one_line": "two are fine"}
    only = ["test_refusals_have_one_line"]
    def test_refusals_have_one_line(self, detected):
        assert len(detected) == 2

class TestWithoutADevice(BackendContract):
    backend = "refusing"

class TestRaising(BackendContract):
    backend = "raising"

class TestMissing(BackendContract):
    backend = "missing"
    only = ["test_detect_is_fast"]
"""
REQUIRED = """
from phi3_core.testing import BackendContract

class TestRequired(BackendContract):
    backend = "required"
    only = ["test_users_get_an_answer"]

class TestAnother(BackendContract):
    backend = "another"
    only = ["test_users_get_an_answer"]

class TestNoPrecision(BackendContract):
    backend = "coarse"
    precisions = ("fp16",)
    only = ["test_users_get_an_answer"]

class TestNoQuantize(BackendContract):
    backend = "ready"
    only = ["test_users_get_an_answer"]
"""
COARSE = """
@hookimpl
def detect(machine):
    from attrs import evolve
    return [evolve(each, precisions=["int4"]) for each in ORIGINAL["detect"](machine)]
"""


@pytest.fixture(scope="module")
def found(run_kit_in, tmp_path_factory):
    """All of these classes in one run."""
    return run_kit_in(tmp_path_factory.mktemp("classes"), BACKENDS, TESTS, "-rs")


def of(found, kind):
    """How the tests of a class ended, by name."""
    return {each.name: each for each in found.outcomes if each.backend == kind}


def test_a_quirk_is_expected_to_fail_and_is_listed(found):
    quirk = of(found, "TestQuirk")
    assert quirk.pop("test_refusals_have_one_line").outcome == "xfailed", found.output
    assert {each.outcome for each in quirk.values()} == {"passed"}
    assert "quirks of backends" in found.output
    assert "TestQuirk::test_refusals_have_one_line: the driver says so" in found.output


def test_a_quirk_that_is_gone_fails(found):
    assert found.code == 1
    assert of(found, "TestQuirkThatIsGone")["test_refusals_have_one_line"].outcome == "failed"


def test_a_test_is_replaced_with_a_reason(found):
    assert {each.outcome for each in of(found, "TestReplaced").values()} == {"passed"}
    assert "TestReplaced::test_refusals_have_one_line: two are fine" in found.output


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"test_detect_is_fast": lambda self: None}, "replaces test_detect_is_fast of the contract: give the reason"),
        ({"test_detect_is_fast": None}, "replaces test_detect_is_fast of the contract"),
        ({"quirks": {"test_detect_is_fast": " "}}, "a quirk of test_detect_is_fast without a reason"),
        ({"quirks": {"test_detect_is_slow": "it is"}}, "a quirk of test_detect_is_slow, and the contract has no such"),
        ({"quirks": {"test_detect_is_fast": "no"}, "test_detect_is_fast": None}, "by something that is no test"),
        ({"offer": None}, "replaces offer, which the tests of the contract need"),
        ({"precisions": "int4"}, "precisions is a tuple of precisions"),
        ({"precisions": ("int4", "FP16")}, "precisions has 'FP16'; known are fp16, int8, int4"),
    ],
)
def test_what_is_replaced_without_a_reason_is_refused(body, message):
    with pytest.raises(TypeError, match=message):
        type("TestAcme", (BackendContract,), {"backend": "acme", **body})


def test_a_method_of_its_own_is_no_replacement():
    kind = type("TestAcme", (BackendContract,), {"backend": "acme", "test_acme_only": lambda self: None})
    assert vars(kind)["__test__"]
    assert not vars(BackendContract)["__test__"]


def test_without_a_device_the_tests_are_skipped_with_the_refusal(found):
    assert {each.outcome for each in of(found, "TestWithoutADevice").values()} == {"passed", "skipped"}
    assert "a device of refusing is not usable here: there is no NPU" in found.output


def test_a_required_backend_fails_where_no_engine_can_be_loaded(run_kit):
    backends = dict.fromkeys(("required", "another"), BACKENDS["refusing"])
    backends |= {"coarse": COARSE, "ready": "del quantize"}
    required = [f"--require-backend={name}" for name in ("required", "coarse", "ready")]
    found = run_kit(backends, REQUIRED, "-rs", *PLUGIN, *required)
    (required,) = of(found, "TestRequired").values()
    assert required.outcome == "failed", found.output
    assert "there is no NPU" in required.message
    (coarse,) = of(found, "TestNoPrecision").values()
    assert coarse.outcome == "failed"
    assert "coarse:CPU offers none of fp16 (--require-backend=coarse)" in coarse.message
    (ready,) = of(found, "TestNoQuantize").values()
    assert ready.outcome == "failed"
    assert "ready does not implement quantize" in ready.message
    (another,) = of(found, "TestAnother").values()
    assert another.outcome == "skipped"


def test_what_another_test_names_is_not_named_again(found):
    failed = {name: each for name, each in of(found, "TestRaising").items() if each.outcome == "failed"}
    assert [name for name, each in failed.items() if each.when == "call"] == ["test_detect_offers_or_refuses"]
    assert "not run: detect failed: OSError: no driver" in failed["test_users_get_an_answer"].message


def test_a_backend_that_is_not_installed_fails(found):
    assert "failed" in {each.outcome for each in of(found, "TestMissing").values()}
    assert "no backend 'missing': installed: " in found.output


def test_nothing_is_loaded_into_the_pytest_of_others(run_kit):
    found = run_kit(
        {},
        "def test_it(request):\n    assert not request.config.pluginmanager.has_plugin('phi3_core.testing.plugin')\n",
    )
    assert found.code == 0
    assert "--require-backend" not in found.output

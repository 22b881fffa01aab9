"""The class of the contract: quirks, what is replaced, what is skipped, and ``--require-backend``."""

from __future__ import annotations

import pytest
from phi3_core.testing import BackendContract

PLUGIN = ("-p", "phi3_core.testing.plugin")
DETECTING = """
from phi3_core.testing import BackendContract

class TestIt(BackendContract):
    backend = "it"
    only = ["test_detect_is_fast"]
"""
LONG_WINDED = """
@hookimpl
def detect(machine):
    return [*ORIGINAL["detect"](machine), Refusal(reason="no GPU" + chr(10) + "at line 5")]
"""
REFUSING = "@hookimpl\ndef detect(machine):\n    return [Refusal(reason='there is no NPU', remedy='buy one')]\n"


def outcomes(run):
    return {each.name: each.outcome for each in run.outcomes}


def test_a_quirk_is_expected_to_fail_and_is_listed(run_kit):
    tests = DETECTING + "    quirks = {'test_refusals_have_one_line': 'the driver says so'}\n"
    found = run_kit({"it": LONG_WINDED}, tests)
    assert found.code == 0, found.output
    assert outcomes(found)["test_refusals_have_one_line"] == "xfailed"
    assert "quirks of backends" in found.output
    assert "TestIt::test_refusals_have_one_line: the driver says so" in found.output


def test_a_quirk_that_is_gone_fails(run_kit):
    found = run_kit({"it": ""}, DETECTING + "    quirks = {'test_refusals_have_one_line': 'the driver says so'}\n")
    assert found.code == 1
    assert outcomes(found)["test_refusals_have_one_line"] == "failed"


def test_a_test_is_replaced_with_a_reason(run_kit):
    tests = DETECTING.replace("test_detect_is_fast", "test_refusals_have_one_line")
    tests += "    quirks = {'test_refusals_have_one_line': 'two are fine'}\n"
    tests += "    def test_refusals_have_one_line(self, detected):\n        assert len(detected) == 2\n"
    found = run_kit({"it": LONG_WINDED}, tests)
    assert found.code == 0, found.output
    assert outcomes(found)["test_refusals_have_one_line"] == "passed"
    assert "TestIt::test_refusals_have_one_line: two are fine" in found.output


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
    ],
)
def test_what_is_replaced_without_a_reason_is_refused(body, message):
    with pytest.raises(TypeError, match=message):
        type("TestAcme", (BackendContract,), {"backend": "acme", **body})


def test_a_method_of_its_own_is_no_replacement():
    kind = type("TestAcme", (BackendContract,), {"backend": "acme", "test_acme_only": lambda self: None})
    assert vars(kind)["__test__"]
    assert not vars(BackendContract)["__test__"]


def test_without_a_device_the_tests_are_skipped_with_the_refusal(run_kit):
    tests = DETECTING.replace("only", "unused")
    found = run_kit({"it": REFUSING}, tests, "-rs")
    assert found.code == 0, found.output
    assert {each.outcome for each in found.outcomes} == {"passed", "skipped"}
    assert "a device of it is not usable here: there is no NPU" in found.output


@pytest.mark.parametrize(("required", "code"), [("it", 1), ("another", 0)])
def test_a_required_backend_fails_without_a_device(run_kit, required, code):
    tests = DETECTING.replace("test_detect_is_fast", "test_users_get_an_answer")
    found = run_kit({"it": REFUSING}, tests, "-rs", *PLUGIN, f"--require-backend={required}")
    assert found.code == code
    assert "there is no NPU" in found.output


def test_what_another_test_names_is_not_named_again(run_kit):
    found = run_kit(
        {"it": "@hookimpl\ndef detect(machine):\n    raise OSError('no driver')\n"}, DETECTING.replace("only", "unused")
    )
    failed = {each.name: each for each in found.outcomes if each.outcome == "failed"}
    assert [name for name, each in failed.items() if each.when == "call"] == ["test_detect_offers_or_refuses"]
    assert "not run: detect failed: OSError: no driver" in failed["test_users_get_an_answer"].message


def test_a_backend_that_is_not_installed_fails(run_kit):
    found = run_kit({}, DETECTING)
    assert found.code == 1
    assert "no backend 'it': installed: " in found.output


def test_nothing_is_loaded_into_the_pytest_of_others(run_kit):
    found = run_kit(
        {},
        "def test_it(request):\n    assert not request.config.pluginmanager.has_plugin('phi3_core.testing.plugin')\n",
    )
    assert found.code == 0
    assert "--require-backend" not in found.output

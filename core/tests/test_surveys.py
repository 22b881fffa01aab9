"""Asking the installed backends: each alone, all at once, and not twice for nothing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from damage import damaged
from phi3_core import __version__, paths, surveys
from phi3_core.plugin import installed
from phi3_core.surveys import survey


def mine(found):
    """What concerns the test's own plugins: others may be installed."""
    names = {"good", "bad", "hangs", "dies", "late"}
    return (
        [str(offer.device) for offer in found.offers if offer.device.backend in names],
        {broken.plugin: broken for broken in found.broken if broken.plugin in names},
    )


def test_broken_backends_cost_the_others_nothing(plugins, monkeypatch):
    monkeypatch.setenv("PHI3_DETECT_LIMIT", "8")
    plugins.add("good")
    plugins.add("bad", changes="raise ImportError('no such DLL')")
    plugins.add("hangs", changes="import time; time.sleep(600)")
    plugins.add("dies", changes="import os; os.abort()")
    offers, broken = mine(survey())
    assert offers == ["good:CPU"]
    assert broken["bad"].distribution == "phi3-bad"
    assert broken["bad"].error == "ImportError: no such DLL"
    assert "within 8 s and was stopped; it is asked again after 10 minutes, or by: phi3 devices --refresh" in (
        broken["hangs"].error
    )
    assert "died" in broken["dies"].error


def test_answers_are_kept_until_something_changes(plugins):
    log = plugins.site / "asked.txt"
    count = f"""
        @hookimpl
        def detect(machine):
            with open({str(log)!r}, "a", encoding="utf-8") as stream:
                stream.write("x")
            return []
    """
    plugins.add("good", changes=count)
    for _ in range(3):
        survey()
    assert log.read_text(encoding="utf-8") == "x"
    survey(refresh=True)
    assert log.read_text(encoding="utf-8") == "xx"
    plugins.add("late")
    assert mine(survey())[0] == ["late:CPU"]
    assert log.read_text(encoding="utf-8") == "xxx"


def test_a_broken_backend_is_asked_again_soon(plugins, home):
    plugins.add("bad", changes="raise ImportError")
    survey()
    content = json.loads((home / "survey.json").read_text(encoding="utf-8"))
    content["time"] -= 3600
    paths.write_json(home / "survey.json", content)
    (plugins.site / "phi3_bad.py").write_text(
        (plugins.site / "phi3_bad.py").read_text(encoding="utf-8").replace("raise ImportError", ""), encoding="utf-8"
    )
    assert mine(survey()) == (["bad:CPU"], {})


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"key": 1, "time": 0}', "\x00"])
def test_a_damaged_cache_is_no_more_than_a_missing_one(plugins, home, content):
    plugins.add("good")
    home.mkdir()
    (home / "survey.json").write_text(content, encoding="utf-8")
    assert mine(survey())[0] == ["good:CPU"]
    assert mine(survey())[0] == ["good:CPU"]


def test_no_value_of_a_damaged_cache_is_an_error(plugins, home):
    plugins.add("good")
    here = survey().machine
    file = home / "survey.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    assert surveys._cached(file, whole["key"], here, "good") is not None
    for content in damaged(whole):
        paths.write_json(file, content)
        surveys._cached(file, whole["key"], here, "good")


@pytest.mark.parametrize("where", ["answers", "broken", "offers", "refusals"])
@pytest.mark.parametrize("wrong", [None, 7, "x"])
def test_a_cache_with_a_value_of_another_kind_is_a_missing_one(plugins, home, where, wrong):
    plugins.add("good")
    survey()
    content = json.loads((home / "survey.json").read_text(encoding="utf-8"))
    (content if where in content else content["answers"][0])[where] = [wrong]
    paths.write_json(home / "survey.json", content)
    assert mine(survey())[0] == ["good:CPU"]


def test_two_distributions_cannot_share_a_name(plugins):
    plugins.add("good", distribution="phi3-good")
    plugins.add("good", distribution="phi3-impostor")
    backends, broken = installed()
    (known,) = [backend for backend in backends if backend.name == "good"]
    (refused,) = [one for one in broken if one.plugin == "good"]
    assert {known.distribution, refused.distribution} == {"phi3-good", "phi3-impostor"}
    assert known.distribution in refused.error


@pytest.mark.parametrize(("first", "second"), [("phi3-good", "phi3-also"), ("phi3-also", "phi3-good")])
def test_the_one_that_was_installed_first_keeps_the_name(plugins, first, second):
    for age, distribution in ((60, second), (3600, first)):
        plugins.add("good", distribution=distribution)
        when = time.time() - age
        os.utime(plugins.site / f"{distribution.replace('-', '_')}-1.0.dist-info", (when, when))
    (known,) = [backend for backend in installed()[0] if backend.name == "good"]
    (refused,) = [one for one in installed()[1] if one.plugin == "good"]
    assert known.distribution == first
    assert refused.distribution == second
    assert refused.error == f"the name 'good' is taken by {first} 1.0; uninstall one of them"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("auto", "--device auto means something else"),
        ("CPU", "--device CPU means something else"),
        ("ac:me", "a colon separates it from the id of a device"),
    ],
)
def test_a_name_that_means_something_else_is_no_backends(plugins, name, reason):
    plugins.add("good")
    plugins.add(name, distribution="phi3-unlucky")
    backends, broken = installed()
    assert [backend.name for backend in backends] == ["good"]
    assert [(each.plugin, each.distribution, each.error) for each in broken] == [
        (name, "phi3-unlucky", f"{name!r} cannot be the name of a backend: {reason}")
    ]


def test_the_backend_of_phi3_npu_has_its_name(plugins):
    plugins.add("npu")
    assert [backend.name for backend in installed()[0]] == ["npu"]
    assert installed()[1] == ()


def test_a_name_in_another_case_is_taken_too(plugins):
    plugins.add("good", distribution="phi3-good")
    plugins.add("GOOD", distribution="phi3-loud")
    for age, distribution in ((60, "phi3_loud"), (3600, "phi3_good")):
        when = time.time() - age
        os.utime(plugins.site / f"{distribution}-1.0.dist-info", (when, when))
    backends, (refused,) = installed()
    assert [backend.name for backend in backends] == ["good"]
    assert refused.plugin == "GOOD"
    assert refused.error == "the name 'GOOD' is taken by phi3-good 1.0 as 'good'; uninstall one of them"


def test_one_distribution_with_two_backends_of_one_name_renames_one(plugins):
    plugins.add("good")
    file = plugins.site / "phi3_good-1.0.dist-info" / "entry_points.txt"
    file.write_text("[phi3]\ngood = phi3_good\nGood = phi3_good\n", encoding="utf-8")
    assert [each.error for each in installed()[1]] == [
        "the name 'Good' is taken by phi3-good 1.0 as 'good'; rename one of them"
    ]


def test_a_backend_that_hangs_is_not_waited_for_when_another_is_named(plugins, monkeypatch):
    monkeypatch.setenv("PHI3_DETECT_LIMIT", "30")
    plugins.add("good", changes="with open(__file__ + '.imports', 'a') as file:\n    file.write('x')")
    plugins.add("hangs", changes="import time; time.sleep(600)")
    begun = time.monotonic()
    found = survey(wanted="good:CPU")
    assert time.monotonic() - begun < 15
    assert mine(found) == (["good:CPU"], {})
    assert found.unasked == ("hangs",)
    assert survey(wanted="GOOD").unasked == ("hangs",)
    assert Path(f"{plugins.site / 'phi3_good.py'}.imports").read_text(encoding="utf-8") == "x"  # the second is kept


def test_what_was_not_waited_for_is_asked_when_it_matters(plugins, monkeypatch):
    monkeypatch.setenv("PHI3_DETECT_LIMIT", "30")
    slow = plugins.site / "slow"
    slow.touch()
    plugins.add("good")
    changes = f"import os, time\nwhile os.path.exists({str(slow)!r}): time.sleep(0.1)"
    plugins.add("late", changes=changes)
    assert survey(wanted="good").unasked == ("late",)
    slow.unlink()
    assert mine(survey(wanted="late"))[0] == ["good:CPU", "late:CPU"]
    assert survey().unasked == ()


def test_a_named_backend_that_hangs_is_waited_for(plugins, monkeypatch):
    monkeypatch.setenv("PHI3_DETECT_LIMIT", "3")
    plugins.add("good")
    plugins.add("hangs", changes="import time; time.sleep(600)")
    found = survey(wanted="hangs")
    assert "within 3 s" in mine(found)[1]["hangs"].error
    assert found.unasked == ()


def test_a_backend_that_names_no_device_and_no_reason_is_said(plugins, run_main):
    plugins.add("good", changes="@hookimpl\ndef detect(machine):\n    return []\n")
    code, out, _ = run_main("devices")
    assert code == 3
    assert "not usable: good: detect of phi3-good 1.0 returned nothing: no device, and no reason why not" in out


@pytest.mark.parametrize(
    ("requirement", "is_newer"),
    [
        ("phi3-core>=99", True),
        ("phi3-core[quantization]<100,>=99.1", True),
        ("Phi3.Core ~= 99.0", True),
        ("phi3_core (>=99)", True),
        ("phi3-core==99.*", True),
        ("phi3-core>=0.2,<0.3", False),
        ("phi3-core>=0.1.9", False),
        ("phi3-core==0.2.0.0", False),
        ("phi3-core<0.1", False),
        ("phi3-core", False),
        ("phi3-core>=99; extra == 'new'", False),
        ("phi3-core-tools>=99", False),
        ("attrs>=99", False),
    ],
)
def test_a_plugin_that_needs_a_newer_core_is_told_so(plugins, requirement, is_newer):
    plugins.add("good")
    metadata = plugins.site / "phi3_good-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text(encoding="utf-8") + f"Requires-Dist: {requirement}\n", encoding="utf-8")
    broken = {one.plugin: one.error for one in installed()[1]}
    assert ("good" in {backend.name for backend in installed()[0]}) != is_newer
    if is_newer:
        assert broken["good"] == f"it needs {requirement}, and this phi3-core is {__version__}: upgrade phi3-core"
    else:
        assert broken == {}


def test_a_store_that_cannot_be_written_costs_only_time(plugins, home):
    plugins.add("good")
    home.write_text("a file where the folder should be", encoding="utf-8")
    assert mine(survey())[0] == ["good:CPU"]


def test_asking_leaves_no_process(plugins):
    import psutil

    plugins.add("good")
    plugins.add("dies", changes="import os; os.abort()")
    survey()
    assert [child for child in psutil.Process(os.getpid()).children() if "phi3_core" in " ".join(child.cmdline())] == []

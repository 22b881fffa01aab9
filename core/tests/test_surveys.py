"""Asking the installed backends: each alone, all at once, and not twice for nothing."""

from __future__ import annotations

import json
import os

import pytest
from phi3_core import paths
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
    assert "8 s" in broken["hangs"].error
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

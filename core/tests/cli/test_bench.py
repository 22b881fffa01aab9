"""``phi3 bench``: what it measures, what it leaves alone, and what it says of devices that fail."""

from __future__ import annotations

import json
import sys

import pytest
from choosy import CHOOSY
from phi3_core.benchmarking.bench import Bench
from phi3_core.benchmarking.measure import Settings
from phi3_core.benchmarking.tasks import Task
from phi3_core.figures.failures import is_noted
from phi3_core.figures.record import read_all
from phi3_core.models.request import ModelRequest

PACED = """
import time
Engine.context_length, Engine.max_concurrency = 150, 2

@hookimpl
def generate(engine, request):
    assert request.lookup == "off" and request.stop_ids == ()
    for number in range(request.max_new_tokens):
        time.sleep(0.001)
        yield 5 + number
"""
GPU = (
    PACED
    + """
@hookimpl
def detect(machine):
    device = Device(backend="{name}", id="0", kind="gpu", name="G", driver="7")
    return [Offer(device=device, precisions=["fp16", "int8"])]
"""
)
DIES = """
import os

@hookimpl
def generate(engine, request):
    yield 5
    os._exit(9)
"""


@pytest.fixture
def paced(plugins):
    plugins.add("paced", changes=PACED)
    return plugins


def rows(out):
    return json.loads(out)["results"]


def test_a_device_is_measured_over_tasks_that_fit_its_context(paced, source, run_main):
    code, out, err = run_main("bench", source, "--repeats", "2", "--json")
    assert code == 0, err
    (row,) = rows(out)
    assert (row["device"], row["precision"], row["backend"]) == ("paced:CPU", "fp16", "phi3-paced 1.0")
    assert row["error"] == ""
    assert row["load_s"] > 0
    assert row["peak_memory_bytes"] is None or row["peak_memory_bytes"] > 10**6
    assert {(task["task"], task["at_once"]) for task in row["tasks"]} == {
        (name, many)
        for name in (
            *("content generation", "creative writing", "code analysis"),
            *("summarization, light", "summarization, moderate"),
        )
        for many in (1, 2)
    }
    for task in row["tasks"]:
        assert task["clipped"]
        assert task["prompt_tokens"] + task["new_tokens"] == 150
        assert task["first_token_s"]["runs"] == 2
        assert task["decode_tokens_per_s"]["runs"] == (2 if task["at_once"] == 1 else 1)
        assert task["decode_tokens_per_s"]["least"] > 0
    assert list(read_all()) == []  # nothing is kept unasked


def test_it_is_saved_compared_and_drawn(paced, source, run_main, tmp_path):
    first = tmp_path / "first.json"
    code, out, _ = run_main("bench", source, "--quick", "--save", "--json")
    first.write_text(out, encoding="utf-8")
    (found,) = read_all()
    assert found.bench.decode_tokens_per_s == rows(out)[0]["tasks"][0]["decode_tokens_per_s"]["median"]
    code, out, err = run_main("bench", source, "--quick", "--compare", first, "--chart", tmp_path / "bench.svg")
    assert code == 0, err
    assert "content generation" in out
    assert "128 + 22 (clipped to the context)" in out
    assert "tokens per second, more is better" in out
    assert any(word in out for word in ("noise", "faster", "slower"))
    assert (tmp_path / "bench.svg").read_text(encoding="utf-8").startswith("<svg")


def test_a_device_that_fails_is_a_line_and_its_weights_are_not_made_unasked(plugins, source, run_main):
    plugins.add("dying", changes=GPU.replace("{name}", "dying") + DIES)
    plugins.add("paced", changes=PACED)
    plugins.add("other")
    code, _, err = run_main("bench", source, "--quick", "--device", "paced:CPU")  # its weights are made
    assert code == 0, err
    code, out, _ = run_main("bench", source, "--quick", "--json")
    assert code == 0
    found = {row["device"]: row for row in rows(out)}
    assert "its process died during generate" in found["dying:0"]["error"]
    assert found["dying:0"]["tasks"] == []
    assert found["paced:CPU"]["tasks"]
    assert found["other:CPU"]["error"].startswith("its weights are not in the store (phi3 bench")
    code, out, _ = run_main("bench", source, "--quick")
    assert [line for line in out.splitlines() if line.startswith("not measured: dying:0 fp16:")]
    code, _, err = run_main("bench", source, "--quick", "--device", "dying:0")  # named, and not replaced
    assert code == 5
    assert "dying:0: its process died" in err


def test_a_device_that_refuses_an_option_costs_no_other_its_figures(plugins, source, run_main):
    plugins.add("able", changes=PACED)
    plugins.add("choosy", changes=CHOOSY)
    for name in ("able", "choosy"):
        assert run_main("models", "pull", source, "--device", name)[0] == 0
    code, out, err = run_main("bench", source, "--quick", "--option", "SPEED=1", "--json")
    assert code == 0, err
    found = {row["device"]: row for row in rows(out)}
    assert found["able:CPU"]["tasks"]
    assert found["choosy:CPU"]["error"] == "choosy has no option SPEED"
    assert not is_noted("choosy:CPU")
    code, _, err = run_main("bench", source, "--quick", "--option", "SPEED=1", "--device", "choosy")
    assert (code, err.splitlines()[-1]) == (2, "phi3: choosy has no option SPEED")


def test_each_precision_in_the_store_is_measured(plugins, source, run_main):
    plugins.add("many", changes=GPU.replace("{name}", "many"))
    for precision in ("fp16", "int8"):
        assert run_main("bench", source, "--quick", "--precision", precision)[0] == 0
    _, out, _ = run_main("bench", source, "--repeats", "1", "--at-once", "1", "--json")
    assert [row["precision"] for row in rows(out)] == ["fp16", "int8"]
    _, out, _ = run_main("bench", source, "--quick", "--json")
    assert [row["precision"] for row in rows(out)] == ["fp16"]


def test_ctrl_c_keeps_what_was_measured(paced, source):
    tasks = (Task(name="one", prompt_tokens=10, new_tokens=4), Task(name="two", prompt_tokens=10, new_tokens=4))
    stages = []

    def progress(stage, done=None, total=None):
        stages.append(stage)
        if "two" in stage:
            raise KeyboardInterrupt

    request = ModelRequest(model=source, progress=progress)
    report, error = Bench(request=request, settings=Settings(tasks=tasks, repeats=2, at_once=1)).run()
    assert error is None
    assert report.interrupted
    (result,) = report.results
    assert [task.task for task in result.tasks] == ["one"]
    assert result.error == "interrupted"
    assert [stage for stage in stages if stage.startswith("paced:CPU fp16: one, 2 of 2; about")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--chart", "x.pdf"], "the chart is drawn as SVG or PNG, and 'x.pdf' is named as something else"),
        (["--chart", "nowhere/x.svg"], "there is no folder"),
        (["--compare", "missing.json"], "there is no file 'missing.json'"),
        (["--save", "--option", "A=B"], "--save keeps figures of the settings"),
        (["--repeats", "0"], "expected a number from 1 on, got '0'"),
    ],
)
def test_what_cannot_be_carried_out_is_said_before_anything_is_measured(run_main, plugins, arguments, words):
    code, out, err = run_main("bench", "sample", *arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_a_png_without_what_draws_it_is_refused_with_the_extra(run_main, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    code, out, err = run_main("bench", "sample", "--chart", "x.png")
    assert (code, out) == (2, "")
    assert err == 'phi3: a chart as PNG needs Pillow (pip install "phi3-core[chart]", or --chart bench.svg)\n'


def test_a_report_of_another_model_is_refused_before_anything_is_measured(paced, source, run_main, tmp_path):
    empty = {"phi3_core": "1", "model": "other", "time": "", "machine": {}, "repeats": 1, "results": []}
    earlier = tmp_path / "x.json"
    earlier.write_text(json.dumps({"format": 1, "interrupted": False, **empty}), encoding="utf-8")
    code, _, err = run_main("bench", source, "--compare", earlier)
    assert code == 2
    assert "the earlier report is of other" in err


def test_a_preference_keeps_no_device_from_being_measured(paced, source, run_main, monkeypatch):
    monkeypatch.setenv("PHI3_DEVICE", "npu")
    monkeypatch.setenv("PHI3_MODEL", source)
    code, out, err = run_main("bench", "--quick", "--repeats", "1", "--json")
    assert code == 0, err
    assert [row["device"] for row in rows(out)] == ["paced:CPU"]


def test_figures_with_configured_options_are_not_kept(paced, source, run_main, monkeypatch, tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('[options.paced]\nSPEED = "1"\n', encoding="utf-8")
    monkeypatch.setenv("PHI3_CONFIG", str(file))
    code, _, err = run_main("bench", source, "--quick", "--repeats", "1", "--save")
    assert code == 0, err
    assert "the figures of paced:CPU are not kept: the configuration has options for its engine" in err
    assert not list(read_all())

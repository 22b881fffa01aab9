"""Figures in the store: what is kept, what is dropped, and what survives damage, other formats and other processes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time

import pytest
from damage import damaged
from phi3_core.cli.entries import date
from phi3_core.figures import failures, record
from phi3_core.figures.record import FILES, KEPT, Samples, add_answers, read, read_all, save_bench
from phi3_core.figures.stall import stall_limits
from phi3_core.figures.values import Conditions, Figures, Subject, age, bucket, by_length
from phi3_core.plugin import Backend
from phi3_core.values import Device

SUBJECT = Subject(backend="ov", device="GPU.0", model="phi", precision="int4")
NOW = Conditions(version="phi3-ov 1.0", runtime={"engine": "2.0"}, driver="31", name="Arc", content="aa")
SAMPLES = Samples(first_token=((100, 1.0),), decode=(20.0,), load_s=(3.0,), time=1000.0)
BENCH = Figures(precision="int4", first_token_s={128: 0.5}, decode_tokens_per_s=40.0, measured=2000.0)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


def only_file(root):
    (file,) = (root / "figures" / "1").glob("*.json")
    return file


def test_what_answers_measured_comes_back_as_medians(root):
    for seconds, speed in ((9.0, 5.0), (1.0, 20.0), (1.2, 22.0)):
        add_answers(SUBJECT, NOW, Samples(first_token=((100, seconds),), decode=(speed,), time=1000 + speed), root)
    found = read(SUBJECT, root).figures(NOW)
    assert found == Figures(
        precision="int4", first_token_s={100: 1.2}, decode_tokens_per_s=20.0, measured=1022.0, by="answers", runs=3
    )
    assert found.counted


def test_too_few_answers_are_kept_and_not_counted(root):
    add_answers(SUBJECT, NOW, SAMPLES, root)
    assert not read(SUBJECT, root).figures(NOW).counted


def test_a_bench_outranks_answers_from_before_and_after(root):
    add_answers(SUBJECT, NOW, SAMPLES, root)
    save_bench(SUBJECT, NOW, BENCH, root)
    add_answers(SUBJECT, NOW, SAMPLES, root)
    found = read(SUBJECT, root)
    assert found.figures(NOW) == BENCH
    assert found.answers.decode == (20.0, 20.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": "phi3-ov 1.1"}, "the backend was phi3-ov 1.0"),
        ({"runtime": {"engine": "2.1"}}, "engine was 2.0, and is 2.1"),
        ({"runtime": {}}, "engine was 2.0, and is not installed"),
        ({"driver": "32"}, "the driver was 31, and is 32"),
        ({"driver": None}, "the driver was 31, and is unknown"),
        ({"name": "Other"}, "the device was Arc"),
        ({"content": "bb"}, "the weights were others"),
    ],
)
def test_figures_do_not_count_when_something_has_changed_and_the_next_ones_replace_them(root, change, words):
    save_bench(SUBJECT, NOW, BENCH, root)
    facts = {name: getattr(NOW, name) for name in ("version", "runtime", "driver", "name", "content")}
    later = Conditions(**{**facts, **change})
    found = read(SUBJECT, root).figures(later)
    assert found.changed == words
    assert not found.counted
    add_answers(SUBJECT, later, SAMPLES, root)
    assert read(SUBJECT, root).bench is None
    assert read(SUBJECT, root).figures(later).changed == ""


def test_more_of_the_runtime_and_unknown_weights_are_no_change(root):
    save_bench(SUBJECT, NOW, BENCH, root)
    facts = {"version": NOW.version, "driver": "31", "name": "Arc"}
    assert read(SUBJECT, root).figures(Conditions(**facts, runtime={"engine": "2.0", "new": "1"})).counted


def test_samples_are_bounded_for_each_length():
    samples = Samples()
    for number in range(100):
        samples = samples.add(Samples(first_token=((128, 1.0 + number), (1000, 2.0)), decode=(float(number + 1),)))
    assert len(samples.first_token) == 2 * KEPT
    assert samples.decode == tuple(float(number) for number in range(93, 101))


def test_a_clock_that_was_wrong_once_does_not_keep_figures_young(root):
    for moment in (9e9, 2000.0):
        add_answers(SUBJECT, NOW, Samples(decode=(20.0,), time=moment), root)
    add_answers(SUBJECT, NOW, Samples(load_s=(3.0,)), root)
    assert read(SUBJECT, root).figures(NOW).measured == 2000.0


def test_files_are_bounded(root, monkeypatch):
    monkeypatch.setattr(record, "FILES", 3)
    for number in range(5):
        save_bench(Subject(backend="ov", device=str(number), model="phi", precision="int4"), NOW, BENCH, root)
    assert len(list(read_all(root))) == 3
    assert FILES > 100


def test_lengths_are_grouped_by_ratio():
    assert [bucket(tokens) for tokens in (0, 1, 2, 3, 90, 91, 128, 181, 182, 4000)] == [
        *(1, 1, 2, 4),
        *(64, 128, 128, 128, 256),
        4096,
    ]
    assert by_length([(100, 1.0), (120, 3.0), (110, 2.0), (1000, 9.0)]) == {110: 2.0, 1000: 9.0}


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": 1}',
        '{"format": 2, "subject": 5}',
        '{"format": 1, "subject": {"backend": "ov"}, "conditions": {}}',
    ],
)
def test_a_damaged_file_costs_its_own_figures_and_is_replaced(root, damage):
    other = Subject(backend="ov", device="CPU", model="phi", precision="int4")
    save_bench(SUBJECT, NOW, BENCH, root)
    file = only_file(root)
    save_bench(other, NOW, BENCH, root)
    file.write_text(damage, encoding="utf-8")
    assert read(SUBJECT, root) is None
    assert [found.subject for found in read_all(root)] == [other]
    save_bench(SUBJECT, NOW, BENCH, root)
    assert read(SUBJECT, root).bench == BENCH


@pytest.mark.parametrize("value", [0, -1, "fast", None, [], float("inf"), float("nan")])
def test_a_figure_that_makes_no_sense_is_not_believed(root, value):
    save_bench(SUBJECT, NOW, BENCH, root)
    content = json.loads(only_file(root).read_text(encoding="utf-8"))
    content["bench"]["first_token_s"]["128"] = value
    only_file(root).write_text(json.dumps(content), encoding="utf-8")
    assert read(SUBJECT, root) is None


@pytest.mark.parametrize("by", ["bench", "answers"])
def test_no_value_of_a_damaged_file_is_an_error(root, by):
    add_answers(SUBJECT, NOW, SAMPLES, root)
    if by == "bench":
        save_bench(SUBJECT, NOW, BENCH, root)
    survived = 0
    for content in damaged(json.loads(only_file(root).read_text(encoding="utf-8"))):
        only_file(root).write_text(json.dumps(content), encoding="utf-8")
        found = read(SUBJECT, root)
        if found is None:
            continue
        survived += 1
        figures = found.figures(NOW)
        json.dumps([figures.task_s, figures.joules_per_token, date(figures.measured)], allow_nan=False)
        prefill_s, token_s = stall_limits(figures, 100, context_length=4096, at_once=2)
        assert (prefill_s or 0) < math.inf > (token_s or 0)
        age(time.time() - figures.measured)
    assert survived  # such as another name of the device


def test_no_value_of_a_damaged_failure_is_an_error(home):
    device = Device(backend="ov", id="GPU.0", kind="gpu", name="Arc", driver="31")
    backend = Backend(name="ov", distribution="phi3-ov", version="1.0", target="phi3_ov")
    failures.note(backend, device, "it hung")
    assert failures.held_back({"ov": backend}, [device], time.time())
    (file,) = (home / "failures").glob("*.json")
    for content in damaged(json.loads(file.read_text(encoding="utf-8"))):
        file.write_text(json.dumps(content), encoding="utf-8")
        for failure in failures.held_back({"ov": backend}, [device], time.time()).values():
            assert date(failure.time)


def test_another_format_is_left_alone(root):
    other = root / "figures" / "2" / "x.json"
    other.parent.mkdir(parents=True)
    other.write_text("{}", encoding="utf-8")
    save_bench(SUBJECT, NOW, BENCH, root)
    assert other.read_text(encoding="utf-8") == "{}"
    assert len(list(read_all(root))) == 1


WRITER = """
import sys
from pathlib import Path
from phi3_core.figures.record import Samples, add_answers
from phi3_core.figures.values import Conditions, Subject
subject = Subject(backend="ov", device="GPU.0", model="phi", precision="int4")
for number in range(4):
    add_answers(subject, Conditions(version="1"), Samples(decode=(float(sys.argv[2]) + number,)), Path(sys.argv[1]))
"""


def test_two_processes_at_once_lose_nothing(root):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(root), str(start)]) for start in (10, 20)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert sorted(read(SUBJECT, root).answers.decode) == [10, 11, 12, 13, 20, 21, 22, 23]


def test_the_time_for_the_task_is_interpolated_and_not_guessed_from_afar():
    def figures(**lengths):
        first = {int(name[1:]): seconds for name, seconds in lengths.items()}
        return Figures(precision="int4", first_token_s=first, decode_tokens_per_s=127.0)

    assert figures(_64=1.0, _192=2.0).task_s == pytest.approx(1.5 + 1)
    assert figures(_128=1.0, _192=2.0).task_s == pytest.approx(2.0)
    assert figures(_32=1.0).task_s == pytest.approx(4 + 1)
    assert figures(_512=1.0).task_s == pytest.approx(0.25 + 1)
    assert figures(_31=1.0).task_s is figures(_513=1.0).task_s is figures().task_s is None
    assert Figures(precision="int4", first_token_s={128: 1.0}).task_s is None

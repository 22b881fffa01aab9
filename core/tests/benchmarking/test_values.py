"""Tasks, reports, comparisons and charts: pure, so nothing is measured here."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import pytest
from attrs import evolve
from damage import damaged
from phi3_core.benchmarking.chart import Box, Text, layout, panels, png, svg
from phi3_core.benchmarking.compare import compare, differences, read_report
from phi3_core.benchmarking.measure import Settings
from phi3_core.benchmarking.remaining import Remaining
from phi3_core.benchmarking.results import Report, Result, Spread, TaskResult
from phi3_core.benchmarking.tasks import TASKS, Prompts, Task, clip
from phi3_core.errors import UsageError
from phi3_core.values import to_plain


def task(first=(0.5, 0.4, 0.6), speed=(20.0, 19.0, 21.0), runs=3, **facts) -> TaskResult:
    return TaskResult(
        **{
            "task": "content generation",
            "prompt_tokens": 128,
            "new_tokens": 256,
            "clipped": False,
            "at_once": 1,
            **facts,
        },
        first_token_s=Spread(median=first[0], least=first[1], most=first[2], runs=runs),
        decode_tokens_per_s=Spread(median=speed[0], least=speed[1], most=speed[2], runs=runs),
    )


def report(*tasks: TaskResult, device="ov:CPU", **facts) -> Report:
    result = Result(device=device, kind="cpu", name="x", precision="int4", tasks=tasks)
    return Report(
        **{"phi3_core": "1", "model": "phi", "time": "2026-01-01", "machine": {}, "repeats": 3, **facts},
        results=[result],
    )


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_tasks_have_the_names_and_the_order_of_mlperf_client():
    assert [each.name for each in TASKS] == [
        "content generation",
        "creative writing",
        "summarization, light",
        "summarization, moderate",
        "code analysis",
    ]


@pytest.mark.parametrize("each", TASKS)
@pytest.mark.parametrize("context", [1, 2, 20, 128, 256, 512, 1000, 1152, 4096])
def test_a_task_is_clipped_to_the_context_and_keeps_an_answer(each, context):
    found = clip(each, context)
    assert found.prompt_tokens >= 1
    assert found.prompt_tokens + found.new_tokens <= max(context, 2)
    assert found.new_tokens >= min(16, context // 2)
    assert found.clipped == (each.prompt_tokens + each.new_tokens > context)
    assert found.clipped or found == each


def test_prompts_have_their_length_and_begin_differently():
    prompts = Prompts(range(1000))
    found = [prompts.take(tokens) for tokens in (1, 10, 999, 1000, 5000) for _ in range(20)]
    assert [len(prompt) for prompt in found] == [tokens for tokens in (1, 10, 999, 1000, 5000) for _ in range(20)]
    assert len({prompt[0] for prompt in found}) == len(found)


# --- results ----------------------------------------------------------------------------------------------------------


def test_a_report_survives_json():
    original = report(task(), task(at_once=8, joules_per_token=0.5))
    assert read_report(to_plain(original), "x.json") == original


def test_the_figures_are_those_of_one_answer_at_a_time():
    one, many = task(joules_per_token=0.4), task(at_once=8, first=(9.0, 9.0, 9.0), speed=(90.0, 90.0, 90.0))
    long = task(task="code analysis", prompt_tokens=2048, first=(5.0, 5.0, 5.0), speed=(15.0, 15.0, 15.0))
    result = evolve(report(many, one, long).results[0], load_s=2.0, peak_memory_bytes=100)
    found = result.figures(7.0)
    assert found.first_token_s == {128: 0.5, 2048: 5.0}
    assert (found.decode_tokens_per_s, found.load_s, found.peak_memory_bytes) == (20.0, 2.0, 100)
    assert (found.joules_per_token, found.measured, found.by, found.runs) == (0.4, 7.0, "bench", 3)
    assert report(many).results[0].figures(7.0) is None


@pytest.mark.parametrize(
    ("before", "now", "ratio", "verdict"),
    [
        ((20, 19, 21), (30, 29, 31), 1.5, "faster"),
        ((30, 29, 31), (20, 19, 21), 2 / 3, "slower"),
        ((20, 19, 25), (30, 24, 31), 1.5, "noise"),
        ((20.0, 19.99, 20.01), (20.5, 20.49, 20.51), 1.025, "noise"),
    ],
)
def test_a_change_is_more_than_noise_if_no_run_is_among_the_others(before, now, ratio, verdict):
    _, speed = compare(report(task(speed=before)), report(task(speed=now)))
    assert (speed.figure, speed.verdict) == ("decode_tokens_per_s", verdict)
    assert speed.ratio == pytest.approx(ratio)


def test_a_shorter_time_to_the_first_token_is_faster():
    first, _ = compare(report(task()), report(task(first=(0.2, 0.2, 0.21))))
    assert (first.figure, first.verdict) == ("first_token_s", "faster")
    assert first.ratio == pytest.approx(2.5)


def test_one_run_leaves_it_unclear():
    assert {change.verdict for change in compare(report(task(runs=1)), report(task(speed=(90, 90, 90))))} == {"unclear"}


def test_only_what_was_measured_alike_is_compared():
    now = report(task(), task(at_once=8), task(new_tokens=64))
    assert [change.at_once for change in compare(report(task()), now)] == [1, 1]
    assert compare(report(task(), device="dml:0"), now) == ()
    with pytest.raises(UsageError, match="of other, not of phi"):
        compare(report(task(), model="other"), now)


@pytest.mark.parametrize("content", [None, [], {}, {"results": 3}, {"format": 2, "results": []}])
def test_what_is_no_report_is_refused(content):
    with pytest.raises(UsageError, match=r"x\.json"):
        read_report(content, "x.json")
    broken = to_plain(report(task()))
    broken["results"][0]["tasks"][0]["first_token_s"] = {"median": "fast"}
    with pytest.raises(UsageError, match=r"x\.json is not a whole report"):
        read_report(broken, "x.json")


def test_no_value_of_a_damaged_report_is_an_error_other_than_that_it_is_none():
    whole = report(task(), machine={"os": "linux", "memory_bytes": 10**9})
    said = []
    for content in damaged(to_plain(whole)):
        try:
            found = read_report(content, "x.json")
            assert isinstance(compare(evolve(found, model="phi"), whole), tuple)
            assert all(isinstance(each, str) for each in differences(found, whole))
        except UsageError as error:
            said.append(str(error))
    assert len(said) > 100
    assert not [words for words in said if "\n" in words]


def test_what_else_differs_is_said():
    before = report(task(), machine={"os": "linux", "memory_bytes": 8 * 10**9, "on_battery": False})
    now = report(task(), machine={"os": "linux", "memory_bytes": 8 * 10**9 + 4096, "on_battery": True}, phi3_core="2")
    (result,) = before.results
    before = evolve(before, results=[evolve(result, backend="phi3-ov 1.0", driver="31")])
    now = evolve(now, results=[evolve(result, backend="phi3-ov 1.1", driver=None, name="y")])
    assert differences(before, now) == (
        "the machine's on_battery was False, and is True",
        "phi3-core was 1, and is 2",
        "ov:CPU's name was x, and is y",
        "ov:CPU's backend was phi3-ov 1.0, and is phi3-ov 1.1",
        "ov:CPU's driver was 31, and is unknown",
    )
    assert differences(now, now) == ()
    assert differences(report(task(), device="dml:0"), report(task())) == ()


# --- the chart --------------------------------------------------------------------------------------------------------


def test_the_chart_has_a_bar_for_each_figure_in_proportion():
    drawn = svg(report(task(), task(task="<code> & analysis", speed=(5.0, 5.0, 5.0), at_once=8)))
    root = ET.fromstring(drawn)
    space = "{http://www.w3.org/2000/svg}"
    bars = [float(each.get("width")) for each in root.iter(f"{space}rect")][1:]
    assert len(bars) == 4
    assert bars[1] / bars[0] == pytest.approx(5 / 20, rel=0.01)
    texts = [each.text for each in root.iter(f"{space}text")]
    assert "<code> & analysis, 8 at once · ov:CPU int4" in texts
    assert "20 tokens/s" in texts
    assert float(root.get("height")) > max(float(each.get("y")) for each in root.iter(f"{space}text"))


def test_the_png_has_the_bars_and_the_words_of_the_svg():
    images = pytest.importorskip("PIL.Image", reason="needs the extra chart")
    drawn = report(task(), task(task="code · é", speed=(5.0, 5.0, 5.0)))
    with images.open(io.BytesIO(png(drawn)), formats=["PNG"]) as image:
        shapes = layout(drawn)
        assert image.size == (2 * shapes.width, 2 * shapes.height)
        pixels = image.convert("RGB")
    for box in [shape for shape in shapes.shapes if isinstance(shape, Box)][1:]:
        colour = tuple(bytes.fromhex(box.colour[1:]))
        inside = [(2 * box.x, 2 * box.y), (2 * (box.x + box.width) - 2, 2 * (box.y + box.height) - 2)]
        assert {pixels.getpixel((int(x), int(y))) for x, y in inside} == {colour}
        assert pixels.getpixel((int(2 * box.x) - 2, int(2 * box.y))) == (255, 255, 255)
    for text in [shape for shape in shapes.shapes if isinstance(shape, Text)]:
        place = (int(2 * text.x), int(2 * (text.y - text.size)), int(2 * text.x) + 24, int(2 * text.y) + 4)
        assert len(pixels.crop(place).getcolors() or ()) > 2, text.words  # not white alone


def test_the_chart_of_nothing_is_a_chart():
    assert [bars for _, bars in panels(report())] == [(), ()]
    ET.fromstring(svg(report()))


# --- time that is left ------------------------------------------------------------------------------------------------


def test_the_time_left_follows_from_what_was_done():
    now = [0.0]
    short = Task(name="short", prompt_tokens=10, new_tokens=99)  # an effort of 100
    settings = Settings(tasks=(short,), repeats=4, at_once=1)
    remaining = Remaining(settings, 2, clock=lambda: now[0])
    remaining.begin_item((1,))
    told = []
    for _ in range(4):
        told.append(remaining.before_run(short, 1))
        now[0] += 10
    remaining.end_item()
    now[0] += 1000  # loading does not count
    remaining.begin_item((1,))
    told += [remaining.before_run(short, 1)]
    assert told[:3] == ["", "; about 70 s left", "; about 60 s left"]
    assert told[4] == "; about 40 s left"
    now[0] += 1000
    assert remaining.before_run(short, 1).endswith("min left")

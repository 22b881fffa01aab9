"""Requests that are processed together, with the sample model and the engine itself."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from phi3_core.errors import BackendError
from phi3_core.values import Device
from phi3_openvino import engine, kv_cache
from phi3_openvino.batching import gap_after
from phi3_openvino.blocks import Blocks
from phi3_openvino.paged import PagedGraph
from sample_requests import CPU, NOISE, asked, gap


@pytest.fixture(scope="module")
def loaded(artifact):
    found = engine.load(artifact, CPU, {}, "conversation")
    yield found
    found.close()


@pytest.fixture(autouse=True)
def all_is_freed(request):
    """After each test nothing of its requests is left: no blocks, no thread."""
    before = threading.active_count()
    yield
    assert threading.active_count() == before
    if "loaded" in request.fixturenames:
        batch = request.getfixturevalue("loaded")._batch
        assert not any((batch._active, batch._arrived, batch._left, batch._stepping))
        if (steps := batch._steps) is not None:
            assert (steps._answers, steps._reserved, steps._blocks.used) == ([], 0, 0)


def together(loaded, requests):
    """Pull each request's answer in a thread of its own."""
    start = threading.Barrier(len(requests))

    def pull(request):
        start.wait()
        return list(loaded.generate(request))

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(pull, requests))


def test_who_asks_alone_waits_less_than_those_who_came_together():
    least = gap_after([5.0], 0.0)
    assert 0 < least <= 0.001
    assert gap_after([1.0, 1.002, 1.003], least) == pytest.approx(0.003)
    assert gap_after([1.003, 1.0, 1.002], least) == pytest.approx(0.003)
    assert gap_after([1.0, 1.0001], least) == least
    assert gap_after([1.0, 1.002, 1.1, 1.107], least) == pytest.approx(0.003)  # the last two came much later
    assert gap_after([1.0, 1.1], least) == least
    gaps = list(itertools.accumulate(range(6), lambda gap, _: gap_after([2.0], gap), initial=0.012))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[1] == pytest.approx(0.006)
    assert gaps[-1] == least


def test_eight_at_once_are_answered_as_alone(loaded, prompts):
    alone = [list(loaded.generate(asked(prompt))) for prompt in prompts]
    assert [len(answer) for answer in alone] == [24] * 8
    found = together(loaded, [asked(prompt) for prompt in prompts])
    gaps = [gap(loaded, *items) for items in zip(prompts, alone, found, strict=True)]
    assert max(gaps) < NOISE
    assert gaps.count(0.0) >= 4


def test_a_seed_gives_the_same_answer_alone_and_among_others(loaded, prompts):
    requests = [asked(prompt, temperature=0.9, top_p=0.95, seed=seed) for seed, prompt in enumerate(prompts)]
    alone = [list(loaded.generate(request)) for request in requests]
    assert together(loaded, requests) == alone
    mixed = [requests[0], *(asked(prompt) for prompt in prompts[1:4]), asked(prompts[4], temperature=1.0)]
    assert together(loaded, mixed)[0] == alone[0]
    assert list(loaded.generate(asked(prompts[0], temperature=0.9, top_p=0.95, seed=99))) != alone[0]


def random_ids(tokens, seed=0):
    return [int(token) for token in np.random.default_rng(tokens + seed).integers(100, 40000, tokens)]


@pytest.mark.parametrize("tokens", [1, 2, 32, 33, 34, 64, 65])
def test_a_prompt_is_answered_alike_every_time(loaded, tokens):
    ids = random_ids(tokens)
    first, *others = (list(loaded.generate(asked(ids))) for _ in range(3))
    assert others == [first] * 2


def test_a_long_prompt_with_a_seed_is_read_among_others_as_alone(loaded, prompts):
    """It is divided at other places: the first part shares a pass with other prompts."""
    settings = {"temperature": 1.0, "seed": 5}
    alone = list(loaded.generate(asked(random_ids(1100), 12, **settings)))
    others = [asked(prompt, 40) for prompt in prompts[1:4]]
    loaded._batch._steps._blocks = Blocks(range(1, loaded._loader.cache.blocks))  # nothing is kept
    assert together(loaded, [*others, asked(random_ids(1100), 12, **settings)])[-1] == alone


def test_a_seed_gives_the_same_answer_after_an_answer_that_is_part_of_the_prompt(loaded, prompts):
    """What decoding leaves in the cache has other bits than what reading gives."""
    answer = list(loaded.generate(asked(prompts[1], 60)))
    turn = asked([*prompts[1], *answer, *prompts[2]], temperature=1.0, seed=5)
    after = list(loaded.generate(turn))
    loaded._batch._steps._blocks = Blocks(range(1, loaded._loader.cache.blocks))
    assert list(loaded.generate(turn)) == after


def test_what_a_prompt_begins_with_is_read_once(loaded, monkeypatch):
    read = []

    def advance(graph, parts, *, spare=None, advance=PagedGraph.advance):
        read.append(sum(len(part.ids) for part in parts))
        return advance(graph, parts, spare=spare)

    monkeypatch.setattr(PagedGraph, "advance", advance)
    ids = random_ids(400, seed=1)
    answer = list(loaded.generate(asked(ids, 40)))
    assert read[0] == 400
    read.clear()
    together(loaded, [asked([*ids, *answer, 7, 8, 9], 2), asked([*ids, 5, 6], 2)])
    assert sum(read) < 100


def test_answers_that_quote_take_less_than_half_of_the_passes(loaded, tokenizer, monkeypatch):
    text = (
        "The lighthouse keeper climbed the stairs every evening at six. He carried a lamp, a book and a small loaf of "
        "bread. The sea was quiet in summer and loud in winter, and the gulls nested under the gallery."
    )
    quoting = tokenizer(f"Copy it.\n\n{text}") + tokenizer(text)[3:12]
    steps = []

    def advance(graph, parts, *, spare=None, advance=PagedGraph.advance):
        steps.append(len(parts))
        return advance(graph, parts, spare=spare)

    monkeypatch.setattr(PagedGraph, "advance", advance)
    plain = list(loaded.generate(asked(quoting, 28, lookup="off")))
    steps.clear()
    found = list(loaded.generate(asked(quoting, 28)))
    assert len(steps) < len(found) / 2
    assert gap(loaded, quoting, plain, found) < NOISE
    among = together(loaded, [asked(quoting, 28), asked(quoting, 28, lookup="off")])
    assert [gap(loaded, quoting, plain, answer) < NOISE for answer in among] == [True] * 2
    seeded = asked(quoting, 28, temperature=0.5, seed=2)
    alone = list(loaded.generate(seeded))
    assert together(loaded, [asked(quoting, 28, lookup="off"), seeded, asked(quoting[:20], 28)])[1] == alone


def test_a_late_request_joins_and_the_early_one_goes_on(loaded, prompts):
    early = loaded.generate(asked(prompts[1], 200))
    begun = list(itertools.islice(early, 5))
    late = list(loaded.generate(asked(prompts[0], 8)))
    assert len(late) == 8
    assert len(loaded._batch._active) == 1  # the early one, which has run ahead of its consumer
    assert early.gi_frame is not None
    assert len(begun) + len(list(early)) == 200


def test_a_closed_answer_frees_its_blocks(loaded, prompts):
    kept, closed = (loaded.generate(asked(prompt, 300)) for prompt in prompts[:2])
    for answer in (kept, closed):
        next(answer)
    held = loaded._batch._steps._blocks.used
    closed.close()
    assert loaded._batch._steps._blocks.used < held
    kept.close()


def test_a_consumer_that_stops_pulling_does_not_stall_the_others(loaded, prompts):
    paused = loaded.generate(asked(prompts[0], 40))
    next(paused)
    answers = together(loaded, [asked(prompt, 60) for prompt in prompts[1:5]])
    assert [len(answer) for answer in answers] == [60] * 4
    assert len(list(paused)) == 39


def test_sixty_requests_one_in_five_cancelled_leave_nothing(loaded, prompts):
    threads = set()

    def pull(number):
        answer = loaded.generate(asked(prompts[number % 8], 10))
        found = list(itertools.islice(answer, 3 if number % 5 == 0 else None))
        answer.close()
        threads.add(threading.active_count())
        return len(found)

    before = threading.active_count()
    with ThreadPoolExecutor(8) as pool:
        lengths = list(pool.map(pull, range(60)))
    assert lengths == [3 if number % 5 == 0 else 10 for number in range(60)]
    assert max(threads) <= before + 8


def test_a_failed_step_ends_what_was_in_it_and_the_next_request_loads_again(artifact, prompts, caplog):
    own = engine.load(artifact, CPU, {}, "conversation")
    expected = list(own.generate(asked(prompts[0], 6)))
    answers = [own.generate(asked(prompt, 50)) for prompt in prompts[:2]]
    for answer in answers:
        next(answer)
    own._batch._steps = Failing()
    for answer in answers:
        with pytest.raises(BackendError, match="the device is gone"):
            list(answer)
    assert list(own.generate(asked(prompts[0], 6))) == expected
    assert "loading the model again, after a failure" in caplog.text
    own.close()


class Failing:
    """A batch whose device is gone."""

    def step(self):
        raise RuntimeError("the device is gone")

    def remove(self, answer):
        raise AssertionError


def test_closing_the_engine_ends_open_answers(artifact, prompts):
    own = engine.load(artifact, CPU, {}, "conversation")
    begun, fresh = (own.generate(asked(prompt, 100)) for prompt in prompts[:2])
    next(begun)
    own.close()
    for answer in (begun, fresh):
        with pytest.raises(BackendError, match="closed"):
            list(answer)


def test_requests_wait_for_room_in_the_cache(loaded, prompts, monkeypatch):
    list(loaded.generate(asked(prompts[0], 1)))
    monkeypatch.setattr(loaded._batch._steps._blocks, "count", 10)  # 320 tokens; each needs 4 or 5 blocks
    answers = together(loaded, [asked(prompt, 100) for prompt in prompts[:4]])
    assert [len(answer) for answer in answers] == [100] * 4
    with pytest.raises(BackendError, match="no room for this request"):
        list(loaded.generate(asked(prompts[0], 400)))


def test_only_conversations_are_batched(artifact, sample_store):
    assert engine.load(artifact, CPU, {}, "answer").max_concurrency == 1
    assert engine.load(artifact, CPU, {"ATTENTION_BACKEND": "SDPA"}, "conversation").max_concurrency == 1
    assert engine.load(artifact, CPU, {"ATTENTION_BACKEND": "PA"}, "conversation").max_concurrency > 1


GIB = 1 << 30


@pytest.mark.parametrize(
    ("memory", "context", "expected"),
    [
        (16 * GIB, 4096, (4096, 11)),
        (24 * GIB, 4096, (4096, 16)),
        (64 * GIB, 4096, (4096, 16)),
        (8 * GIB, 4096, (4096, 5)),
        (4 * GIB, 131072, (15728, 2)),
    ],
)
def test_the_cache_fits_the_memory(tmp_path, caplog, memory, context, expected):
    layer = '<data variable_type="f32" variable_shape="?,32,?,96"/>'
    xml = tmp_path / "openvino_model.xml"
    xml.write_text("<net>" + layer * 64 + "</net>", encoding="utf-8")
    device = Device(backend="openvino", id="GPU.1", kind="dgpu", name="x", memory_bytes=memory)
    token = 64 * 32 * (96 + 24)
    assert kv_cache.token_bytes(xml, device, {"KV_CACHE_PRECISION": "u8"}) == token
    found = kv_cache.plan(xml, device, {"KV_CACHE_PRECISION": "u8"}, context)
    assert found is not None
    assert (found.context, found.concurrency) == expected
    assert found.blocks * found.block >= max(found.context, found.concurrency * kv_cache.SHARE)
    of_requests = found.blocks - found.concurrency - 2
    assert of_requests * found.block <= max(found.context, min(memory // 4 // token, 32768))
    assert ("the context is limited to 15728 tokens" in caplog.text) == (context > 4096)
    assert kv_cache.token_bytes(xml, device, {}) == 64 * 32 * 96 * 2

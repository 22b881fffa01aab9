"""Requests that OpenVINO GenAI's pipeline processes together, as on GPUs, with the sample model on the CPU."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
from attrs import evolve
from phi3_core.errors import BackendError
from phi3_core.values import Device
from phi3_openvino import engine
from phi3_openvino.pipeline_batch import PipelineBatch
from sample_requests import NOISE, asked, gap

DEVICE = Device(backend="openvino", id="CPU", kind="gpu", name="a CPU, driven like a GPU")


@pytest.fixture(scope="module")
def loaded(artifact):
    found = engine.load(artifact, DEVICE, {}, "conversation")
    assert "lookup" not in found.capabilities
    yield found
    found.close()


@pytest.fixture
def steps(loaded, prompts):
    """After each test nothing of its requests is left."""
    list(loaded.generate(asked(prompts[0], 1)))
    steps = loaded._batch._steps
    assert isinstance(steps, PipelineBatch)
    yield steps
    assert (steps._answers, steps._leaving, steps._free) == ([], 0, loaded._loader.cache.blocks)
    assert not steps._pipeline.has_non_finished_requests()


def test_answers_together_are_those_alone(loaded, steps, prompts):
    alone = [list(loaded.generate(asked(prompt))) for prompt in prompts[:3]]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda prompt: list(loaded.generate(asked(prompt))), prompts[:3]))
    assert [len(answer) for answer in found] == [24] * 3
    assert max(gap(loaded, *items) for items in zip(prompts, alone, found, strict=False)) < NOISE


def test_a_closed_answer_leaves_the_others_alone(loaded, steps, prompts):
    kept, closed = (loaded.generate(asked(prompt, 30)) for prompt in prompts[:2])
    assert len(list(itertools.islice(closed, 3))) == 3
    begun = list(itertools.islice(kept, 3))
    closed.close()
    assert len(begun) + len(list(kept)) == 30


def test_requests_wait_for_room_and_what_never_has_room_is_refused(loaded, steps, prompts, monkeypatch):
    monkeypatch.setattr(steps, "_free", 10)  # of 16 tokens; each needs 6
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda prompt: list(loaded.generate(asked(prompt, 40))), prompts[:2]))
    assert [len(answer) for answer in found] == [40] * 2
    with pytest.raises(BackendError, match="no room for this request"):
        list(loaded.generate(asked(prompts[0], 400)))
    assert steps._free == 10
    monkeypatch.undo()


def test_stop_ids_end_an_answer(loaded, steps, prompts):
    answer = list(loaded.generate(asked(prompts[0])))
    ended = list(loaded.generate(evolve(asked(prompts[0]), stop_ids=(answer[4],))))
    assert ended == answer[: answer.index(answer[4])]

"""Single answers on the CPU, decoded by phi3-core with the graph's forward pass: the same as the pipelines', and faster
where they quote.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import openvino
import openvino_genai
import psutil
import pytest
from phi3_core.backend import Decoder
from phi3_openvino import engine, forward, weights
from phi3_openvino.configuration import configuration
from sample_requests import CPU, NOISE, asked, gap

TEXTS = (
    (
        "The lighthouse keeper climbed the stairs every evening at six. He carried a lamp, a book and a small loaf of "
        "bread. The sea was quiet in summer and loud in winter, and the gulls nested under the gallery."
    ),
    (
        "On the last day of October a ship with green sails came into the bay, and nobody on the island had seen its "
        "flag before. The baker gave the captain tea, and two children carried his chest to the inn."
    ),
)


@pytest.fixture(scope="module")
def quoting(tokenizer):
    """Prompts that are continued by what they begin with."""
    return [tokenizer(f"Copy it.\n\n{text}") + tokenizer(text)[3:12] for text in TEXTS]


@pytest.fixture(scope="module", params=["short", "paged"])
def loaded(request, artifact):
    found = engine.load(artifact, CPU, {}, "answer", 2000 if request.param == "paged" else None)
    assert found._form == request.param
    assert {"lookup", "logits"} <= found.capabilities
    yield found
    found.close()


@pytest.fixture
def passes(loaded, monkeypatch):
    """The numbers of rows of the passes so far."""
    counted = []
    for kind in (forward.StatefulForward, forward.PagedForward):

        def advance(self, ids, rows, advance=kind.advance):
            counted.append(rows)
            return advance(self, ids, rows)

        monkeypatch.setattr(kind, "advance", advance)
    return counted


def test_answers_are_those_of_the_pipeline(loaded, prompts):
    """Without lookup they are the same to the last bit: the pipeline does the same passes."""
    kind = "SDPA" if loaded._form == "short" else "PA"
    properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "ATTENTION_BACKEND": kind}
    if (group := loaded._loader._cpu_properties().get("DYNAMIC_QUANTIZATION_GROUP_SIZE")) is not None:
        properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = group
    pipeline = openvino_genai.LLMPipeline(loaded._loader.source, "CPU", **properties)
    for prompt in prompts[:4]:
        request = asked(prompt, lookup="off")
        ids = np.array([prompt], np.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        expected = pipeline.generate(inputs, configuration(request)).tokens[0]
        assert list(loaded.generate(request)) == expected


@pytest.mark.parametrize(("purpose", "prompt_tokens"), [("answer", None), ("answer", 2000), ("conversation", None)])
def test_the_weights_are_packed_while_it_loads(artifact, prompts, purpose, prompt_tokens):
    """Otherwise the first prompt waits for it, and the time is taken for the device's."""
    process = psutil.Process()
    loaded = engine.load(artifact, CPU, {}, purpose, prompt_tokens)
    before = process.memory_info().rss
    assert len(list(loaded.generate(asked(prompts[0], 2)))) == 2
    taken = process.memory_info().rss - before
    packed = (loaded._loader.source / weights.IR).with_suffix(".bin").stat().st_size
    loaded.close()
    assert taken < packed / 4


def test_answers_that_quote_take_less_than_half_of_the_passes(loaded, quoting, passes):
    for prompt in quoting:
        plain = list(loaded.generate(asked(prompt, 28, lookup="off")))
        passes.clear()
        found = list(loaded.generate(asked(prompt, 28)))
        assert len(passes) < len(found) / 2
        assert gap(loaded, prompt, plain, found) < NOISE
        assert list(loaded.generate(asked(prompt, 28))) == found


def test_answers_that_do_not_quote_have_hardly_more_rows(loaded, prompts, passes):
    more = 0
    for prompt in prompts[:5]:
        plain = list(loaded.generate(asked(prompt, lookup="off")))
        passes.clear()
        found = list(loaded.generate(asked(prompt)))
        assert gap(loaded, prompt, plain, found) < NOISE
        more += sum(passes) - len(found)
    assert more <= 12


def test_a_seed_gives_the_same_answer_with_and_without_lookup(loaded, quoting):
    settings = {"temperature": 0.7, "top_p": 0.9, "seed": 3}
    plain = list(loaded.generate(asked(quoting[0], 40, lookup="off", **settings)))
    found = list(loaded.generate(asked(quoting[0], 40, **settings)))
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(plain, found, strict=True)))
    assert same >= 8  # the logits differ in their last bits, and a draw may fall between


def test_an_answer_that_was_closed_changes_none_after_it(loaded, prompts, quoting):
    first = list(loaded.generate(asked(prompts[0])))
    for count in (1, 5, 20):
        answer = loaded.generate(asked(quoting[0], 60))
        assert len(list(itertools.islice(answer, count))) == count
        answer.close()
        assert list(loaded.generate(asked(prompts[0]))) == first


def test_the_cache_grows_and_keeps_what_is_in_it(loaded):
    ids = [int(token) for token in np.random.default_rng(7).integers(100, 40000, 500)]
    answer = list(loaded.generate(asked(ids, 8)))
    decoder = loaded._pipeline
    assert isinstance(decoder, Decoder)
    pieces = Decoder(decoder._forward, plan=lambda ids: [tuple(ids[at : at + 100]) for at in range(0, len(ids), 100)])
    assert gap(loaded, ids, answer, list(pieces.generate(asked(ids, 8)))) < NOISE


@pytest.mark.parametrize("removed", [[9] * 3, [1000, 2000, 3000, 4000, 5000]])
def test_what_was_removed_from_the_cache_is_not_seen(loaded, prompts, removed):
    """Keys are quantized in groups of tokens, so it leaves a trace in the scale of its group, and no more."""
    passing = loaded._pipeline._forward

    def logits(then=(), *, remove=True):
        passing.rewind(0)
        passing.advance(prompts[0], 1)
        if then:
            passing.advance(then, 1)
            if remove:
                passing.rewind(len(prompts[0]))
        return passing.advance(prompts[1][4:7], 3).copy()

    expected = logits()
    seen = np.abs(logits(removed, remove=False) - expected).mean()
    assert np.abs(logits(removed) - expected).mean() < seen / 5


@pytest.mark.parametrize(
    ("options", "purpose"),
    [({"ATTENTION_BACKEND": "SDPA"}, "conversation"), ({"KV_CACHE_PRECISION": "f16"}, "answer")],
)
def test_other_engines_have_no_lookup(artifact, options, purpose):
    found = engine.load(artifact, CPU, options, purpose)
    assert "lookup" not in found.capabilities
    found.close()


def test_graphs_of_others_are_recognized(artifact, sample_home):
    converted = next(sample_home.glob("engines/*/openvino-ir-*"))
    assert not weights.made_here(converted / weights.IR)

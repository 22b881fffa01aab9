"""OpenVINO's NPU pipeline on the CPU: ids, shapes, what is kept, what the NPU plugin's passes make of our graphs."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import numpy as np
import openvino
import openvino_genai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.forward import logits
from phi3_core.errors import BackendError, PromptTooLongError, UsageError
from phi3_core.quantization.bit_allocation import RoundingPlan
from phi3_core.quantization.scales import Scheme
from phi3_core.testing.checkpoints import TINY, write_random
from phi3_core.values import Artifact, Device, GenerationRequest, Sampling
from phi3_openvino import engine, graph, npu, opening, weights
from phi3_openvino.detection import has_npu_plugin

pytestmark = pytest.mark.skipif(not has_npu_plugin(openvino.Core()), reason="OpenVINO has no NPU plugin here")

CPU = Device(backend="openvino", id="CPU", kind="cpu", name="x")
NPU = Device(backend="openvino", id="NPU", kind="npu", name="x")
NPU_CPU = Device(backend="openvino", id="NPU-CPU", kind="cpu", name="x")
CONTEXT, ORIGINAL = 2500, 1500
IDS = [int(token) for token in np.random.default_rng(1).integers(3, 320, CONTEXT)]
SIZE = {
    "max_position_embeddings": CONTEXT,
    "original_max_position_embeddings": CONTEXT,
    # With fewer than 5, the pipeline does not find the layers that repeat, and some numbers of them do not compile.
    "num_hidden_layers": 5,
}
EXACT = {"KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
EXACT_NPU = {"KV_CACHE_PRECISION": "f32", "NPUW_LLM_CACHE_ROPE": "NO"}
"""The pipeline's own tables of sine and cosine are in float16, and so is its KV cache."""
LONGROPE = [name for name in TINY if "rope_scaling" in TINY[name]]


def write(folder, name, **plan):
    """An artifact of one shape of the family."""
    sizes = SIZE | ({"original_max_position_embeddings": ORIGINAL} if name in LONGROPE else {})
    source = write_random(folder / "source", {**TINY[name], **sizes})
    checkpoint = Checkpoint.open(source)
    schemes = {weight.name: scheme for weight in checkpoint.linear for scheme in plan.values()}
    artifact = folder / "artifact"
    artifact.mkdir()
    graph.write(checkpoint, RoundingPlan(schemes=schemes), artifact / weights.IR)
    (artifact / "config.json").write_bytes((source / "config.json").read_bytes())
    return Artifact(path=artifact, backend="openvino", precision="fp16", manifest={"digest": name, "recipe": {}})


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return {name: write(tmp_path_factory.mktemp(name), name) for name in TINY}


@pytest.fixture
def artifact(artifacts):
    return artifacts["phi-4"]


def asked(tokens, new, stop_ids=(), **sampling):
    return GenerationRequest(
        prompt_ids=tuple(IDS[:tokens]), max_new_tokens=new, sampling=Sampling(**sampling), stop_ids=stop_ids
    )


def answer(artifact, device, options, purpose):
    """Load, answer, and free the model, which some systems need before its files are changed."""
    loaded = engine.load(artifact, device, options, purpose)
    with contextlib.closing(loaded):
        return list(loaded.generate(asked(20, 6)))


def said(caplog):
    return [record.getMessage() for record in caplog.records]


# --- ids --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY)
def test_its_ids_are_those_of_the_cpu(artifacts, home, name):
    """Past the window, and where a prompt nearly fills its shape."""
    ours, cpu = (
        engine.load(artifacts[name], device, options, "answer")
        for device, options in ((NPU_CPU, EXACT_NPU), (CPU, EXACT))
    )
    for tokens, new in ((20, 12), (1022, 6)):
        assert list(ours.generate(asked(tokens, new))) == list(cpu.generate(asked(tokens, new))), (tokens, new)


@pytest.mark.parametrize("name", TINY)
def test_its_ids_are_those_of_the_cpu_in_chunks(artifacts, home, name):
    """To the end of the context. Prompts in chunks need a KV cache in float16, which the CPU has here, too."""
    ours = engine.load(artifacts[name], NPU_CPU, {"NPUW_LLM_CACHE_ROPE": "NO"}, "conversation")
    cpu = engine.load(artifacts[name], CPU, EXACT | {"KV_CACHE_PRECISION": "f16"}, "conversation")
    end = ours.context_length
    assert end == (ORIGINAL if name in LONGROPE else CONTEXT)
    for tokens, new in ((end - 4, 4), (40, 4)):
        assert list(ours.generate(asked(tokens, new))) == list(cpu.generate(asked(tokens, new))), (tokens, new)


@pytest.mark.parametrize(("options", "tolerance"), [(EXACT_NPU, 1e-4), ({}, 2e-3)], ids=["exact", "as on an NPU"])
@pytest.mark.parametrize("name", TINY)
def test_its_logits_are_the_reference(artifacts, home, name, options, tolerance):
    found = engine.load(artifacts[name], NPU_CPU, options, "evaluation").logits(IDS[:100])
    expected = logits(Checkpoint.open(artifacts[name].path.parent / "source"), IDS[:100])
    assert np.abs(found - expected).max() <= tolerance * np.ptp(expected)


def test_it_stops_before_a_stop_id_and_where_it_is_closed(artifact, home):
    loaded = engine.load(artifact, NPU_CPU, {}, "answer")
    whole = list(loaded.generate(asked(30, 20)))
    place = next(index for index in range(5, 20) if whole[index] not in whole[:index])
    assert list(loaded.generate(asked(30, 20, stop_ids=(whole[place],)))) == whole[:place]
    stream: Any = loaded.generate(asked(30, 1000))
    assert next(stream) == whole[0]
    stream.close()
    assert list(loaded.generate(asked(30, 20))) == whole


def test_a_seed_tells_the_same(artifact, home):
    loaded = engine.load(artifact, NPU_CPU, {}, "answer")
    first, again, other = (list(loaded.generate(asked(30, 12, temperature=1.0, seed=seed))) for seed in (1, 1, 2))
    assert first == again != other


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_a_conversation_that_grows_takes_the_next_shape_with_a_sentence(artifact, home, caplog):
    loaded = engine.load(artifact, NPU_CPU, {}, "conversation")
    short = list(loaded.generate(asked(900, 4)))
    assert said(caplog) == []
    assert len(list(loaded.generate(asked(1100, 4)))) == 4
    assert said(caplog) == [
        "1100 tokens of text, and up to 4 more: loading the model for prompts of 2048 and answers of 512"
    ]
    assert list(loaded.generate(asked(900, 4))) == short
    assert len(said(caplog)) == 1


def test_a_kept_prefix_changes_nothing(artifact, home):
    with_cache, without = (engine.load(artifact, NPU_CPU, {}, purpose) for purpose in ("conversation", "answer"))
    for tokens in (2060, 2100, 1500):
        assert list(with_cache.generate(asked(tokens, 5))) == list(without.generate(asked(tokens, 5))), tokens


def test_an_answer_longer_than_its_room_has_it_all(artifact, home, caplog):
    loaded = engine.load(artifact, NPU_CPU, {}, "conversation")
    assert len(list(loaded.generate(asked(20, 2100)))) == 2100
    assert [text.partition(": ")[2] for text in said(caplog)] == [
        "loading the model for prompts of 1024 and answers of 1536"
    ]


def test_a_single_answer_loads_once_for_its_prompt(artifact, home, caplog):
    loaded = engine.load(artifact, NPU_CPU, {}, "answer")
    assert len(list(loaded.generate(asked(1500, 3)))) == 3
    assert said(caplog) == []
    (folder,) = (home / "engines").rglob("openvino-NPU-CPU*")
    assert len(list(folder.glob("*.blob"))) == 1


@pytest.mark.parametrize("purpose", ["answer", "conversation"])
@given(data=st.data(), context=st.integers(64, 20_000))
def test_every_request_has_a_shape_and_there_are_few(purpose, data, context):
    shapes = npu.Shapes(context=context, purpose=purpose, prompt=None, answer=None)
    prompt = data.draw(st.integers(1, context - 1))
    new = data.draw(st.integers(1, context - prompt))
    shape = shapes.fitting(prompt, new)
    assert shape.holds(prompt, new)
    assert shape.prompt % 1024 == 0 or shape.prompt - context < 64
    assert shape.prompt - prompt < 1024
    end = shape.prompt + shape.answer - context
    assert shape.answer in {512, 1024} or shape.answer % 1024 == 0 or end <= 64 + 63


@pytest.mark.parametrize(
    ("purpose", "prompt", "new", "expected"),
    [
        ("answer", 30, 256, (1024, 512)),
        ("answer", 600, 1024, (1024, 1024)),
        ("answer", 1025, 20, (2048, 512)),
        ("answer", 30, 3000, (1024, 2048)),
        ("answer", 30, 4066, (1024, 3072)),
        ("answer", 4000, 96, (4096, 64)),
        ("conversation", 1024, 1024, (1024, 1024)),
        ("conversation", 2500, 1024, (3072, 1024)),
    ],
)
def test_shapes_of_a_model_with_4096_tokens(purpose, prompt, new, expected):
    shapes = npu.Shapes(context=4096, purpose=purpose, prompt=None, answer=None)
    shape = shapes.fitting(prompt, new)
    assert (shape.prompt, shape.answer) == expected


def test_the_users_numbers_hold(artifact):
    def shapes(**options):
        return opening.check(artifact, NPU, options, "conversation").shapes

    both = shapes(MAX_PROMPT_LEN="200", MIN_RESPONSE_LEN="100")
    assert (both.longest, both.fitting(200, 100), both.fitting(1, 299)) == (
        300,
        *[npu.Shape(prompt=200, answer=100)] * 2,
    )
    with pytest.raises(PromptTooLongError, match="has 201 tokens, and MAX_PROMPT_LEN is 200") as caught:
        both.fitting(201, 1)
    assert caught.value.hint == "leave it out, or --option MAX_PROMPT_LEN=1024"
    assert shapes(MAX_PROMPT_LEN="200").fitting(200, 1500) == npu.Shape(prompt=200, answer=2048)
    assert shapes(MAX_PROMPT_LEN="200").longest == CONTEXT
    assert shapes(MIN_RESPONSE_LEN="100").fitting(30, 2000) == npu.Shape(prompt=2048, answer=100)
    with pytest.raises(UsageError, match="MAX_PROMPT_LEN is a number of tokens, not 'many'"):
        shapes(MAX_PROMPT_LEN="many")


def test_the_users_numbers_hold_in_the_engine(artifact, home):
    options = {"MAX_PROMPT_LEN": "100", "MIN_RESPONSE_LEN": "28"}
    loaded = engine.load(artifact, NPU_CPU, options, "conversation")
    assert loaded.context_length == 128
    assert len(list(loaded.generate(asked(100, 28)))) == 28
    assert len(list(loaded.generate(asked(10, 118)))) == 118
    with pytest.raises(PromptTooLongError, match="MAX_PROMPT_LEN=1024"):
        list(loaded.generate(asked(101, 1)))


def test_longrope_ends_at_its_original_context(artifacts, caplog):
    longrope = artifacts["phi-4-mini"]
    assert opening.check(longrope, NPU, {}, "answer").context == ORIGINAL
    assert f"the context is limited to {ORIGINAL} tokens" in caplog.text
    with pytest.raises(UsageError, match=f"have to fit into {ORIGINAL} tokens, not 2000"):
        opening.check(longrope, NPU, {"MAX_PROMPT_LEN": "2000"}, "answer")


# --- options and what is kept -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("purpose", "hint", "caching", "mode"),
    [("answer", "FAST_COMPILE", "NO", "OPTIMIZE_SPEED"), ("conversation", "BEST_PERF", "YES", "OPTIMIZE_SIZE")],
)
def test_defaults_are_those_of_the_purpose(purpose, hint, caching, mode):
    shapes = npu.Shapes(context=4096, purpose=purpose, prompt=None, answer=None)
    found, on_cpu = (npu.pipeline_properties(device, shapes, shapes.smallest()) for device in (NPU, NPU_CPU))
    assert found["NPUW_LLM_GENERATE_HINT"] == hint
    assert found["NPUW_LLM_ENABLE_PREFIX_CACHING"] == caching
    assert found["CACHE_MODE"] == mode
    assert npu.pipeline_properties(NPU, shapes, shapes.fitting(2000, 1))["CACHE_MODE"] == "OPTIMIZE_SIZE"
    assert set(on_cpu) - set(found) == {"NPUW_DEVICES", "NPUW_ONLINE_PIPELINE", "INFERENCE_PRECISION_HINT"}


@pytest.mark.parametrize("name", ["GENERATE_HINT", "NPUW_LLM_ENABLE_PREFIX_CACHING", "NPUW_FOO"])
@pytest.mark.parametrize("purpose", ["answer", "conversation"])
def test_an_option_that_it_does_not_take_is_a_usage_error(artifact, home, name, purpose):
    with pytest.raises(UsageError, match=f"{name}=WRONG"):
        list(engine.load(artifact, NPU_CPU, {name: "WRONG"}, purpose).generate(asked(20, 1)))


def test_what_a_purpose_asks_for_has_an_effect(artifact, home):
    """By what a kept model records of its options, and by its size."""
    engine.load(artifact, NPU_CPU, {}, "conversation").close()
    (conversation,) = (blob.read_bytes() for blob in blobs(home))
    assert answer(artifact, NPU_CPU, {}, "answer")
    (single,) = (blob.read_bytes() for blob in blobs(home) if blob.stat().st_size != len(conversation))
    for setting in (b'NPUW_LLM_GENERATE_HINT="BEST_PERF"', b'NPUW_LLM_ENABLE_PREFIX_CACHING="YES"'):
        assert setting in conversation
        assert setting not in single
    # The weights, 64 KiB in the largest matrix, are in one of them only.
    assert len(single) > len(conversation) + (64 << 10)


def test_an_option_in_either_spelling_overrides_the_default(artifact, home):
    for name in ("GENERATE_HINT", "NPUW_LLM_GENERATE_HINT"):
        engine.load(artifact, NPU_CPU, {name: "FAST_COMPILE"}, "conversation").close()
    kept = [blob.read_bytes() for blob in blobs(home)]
    assert len(kept) == 2
    assert not any(b'NPUW_LLM_GENERATE_HINT="BEST_PERF"' in blob for blob in kept)


def blobs(home):
    return sorted((home / "engines").rglob("*.blob"))


def test_a_compiled_model_is_kept_for_the_same_options_only(artifact, home, caplog):
    for options in ({}, {}, {"INFERENCE_PRECISION_HINT": "bf16"}):
        engine.load(artifact, NPU_CPU, options, "conversation").close()
    assert len(blobs(home)) == 2
    assert len({blob.parent for blob in blobs(home)}) == 2
    assert said(caplog) == []


@pytest.mark.parametrize("device", [NPU_CPU, CPU], ids=str)
def test_a_damaged_compiled_model_is_replaced_with_a_sentence(artifact, home, caplog, device):
    expected = answer(artifact, device, {}, "answer")
    (blob,) = blobs(home)
    whole = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(whole[: len(whole) // 2])
    assert answer(artifact, device, {}, "answer") == expected
    assert said(caplog) == ["the compiled model that was kept was damaged, and was compiled again"]
    (blob,) = blobs(home)
    assert blob.stat().st_size > 0.9 * len(whole)


def test_a_compiled_model_that_a_driver_refuses_is_thrown_away_with_a_sentence(artifact, home, caplog, monkeypatch):
    """As NPU drivers do with a model that an older one compiled; OpenVINO on the CPU compiles again by itself."""

    def refuse(source, target, **properties):
        if blobs(home):
            raise RuntimeError("Exception from a driver:\nL0 pfnCreate2 result: ZE_RESULT_ERROR_INVALID_NATIVE_BINARY")
        return loading(source, target, **properties)

    expected = answer(artifact, NPU_CPU, {}, "conversation")
    loading = openvino_genai.LLMPipeline
    monkeypatch.setattr(openvino_genai, "LLMPipeline", refuse)
    assert answer(artifact, NPU_CPU, {}, "conversation") == expected
    (sentence,) = said(caplog)
    assert re.fullmatch(r"the compiled model that was kept does not load, and is compiled again: .*BINARY", sentence)
    assert len(blobs(home)) == 1


def test_without_a_kept_one_a_failure_is_a_failure(artifact, home, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no memory left")

    monkeypatch.setattr(openvino_genai, "LLMPipeline", refuse)
    with pytest.raises(BackendError, match="loading failed: no memory left"):
        engine.load(artifact, NPU_CPU, {}, "conversation")


# --- the graph --------------------------------------------------------------------------------------------------------

_KEY = bytes([0x30, 0x60, 0x70, 0x02, 0x04, 0x08, 0x3F, 0x6F, 0x72, 0x74, 0x78, 0x7F])
"""OpenVINO's CPU plugin hides the graph in a blob by this repeated key (``openvino/util/codec_xor.hpp``)."""


def compiled_graphs(blob):
    """The graphs in a compiled model, as XML, by name."""
    found = {}
    for phase in range(len(_KEY)):
        key = np.resize(np.roll(np.frombuffer(_KEY, np.uint8), -phase), len(blob))
        text = (np.frombuffer(blob, np.uint8) ^ key).tobytes()
        for part in re.finditer(rb'<net name="(\w+)".*?</net>', text, re.DOTALL):
            found[part[1].decode()] = part[0].decode()
    return found


@pytest.mark.parametrize("name", TINY)
def test_its_passes_know_the_rotary_embedding(artifacts, home, name):
    """Sine and cosine have become tables: constants, or inputs where longrope has two of each."""
    engine.load(artifacts[name], NPU_CPU, {"GENERATE_HINT": "FAST_COMPILE"}, "conversation").close()
    (blob,) = blobs(home)
    graphs = {name: text for name, text in compiled_graphs(blob.read_bytes()).items() if "lm_head" not in name}
    assert len(graphs) == 2
    for text in graphs.values():
        types = re.findall(r' type="(\w+)"', text)
        assert "RoPE" in types
        assert not {"Sin", "Cos"} & set(types)
        assert ('name="npuw_lr_cos"' in text) == (name in LONGROPE)


@pytest.mark.parametrize(("scheme", "quantizes"), [(Scheme(bits=4), True), (Scheme(bits=4, group_size=64), False)])
def test_it_knows_what_was_rounded_how(tmp_path, home, scheme, quantizes):
    """With one scale per channel, the plugin quantizes the activations of prompts as well (NPUW_DQ), else not."""
    artifact = write(tmp_path, "phi-4", scheme=scheme)
    written = (artifact.path / weights.IR).read_text(encoding="utf-8")
    assert f'<group_size value="{scheme.group_size}"' in written
    assert '<mode value="int4_sym"' in written
    engine.load(artifact, NPU_CPU, {}, "conversation").close()
    (blob,) = blobs(home)
    assert (b'NPUW_PMM="NO"' in blob.read_bytes()) != quantizes

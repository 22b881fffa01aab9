"""The engine on tiny checkpoints of every shape: the ids that core's reference would choose, however it gets there."""

from __future__ import annotations

import json
from random import Random

import onnx
import pytest
from phi3_core.backend import Sampler, Scheme, core_threads
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.forward import logits
from phi3_core.decoding.prompt_lookup import PromptLookup
from phi3_core.errors import BackendError, ModelError, PromptTooLongError, UsageError
from phi3_core.testing.checkpoints import TINY, write_random
from phi3_core.values import Artifact, Device, GenerationRequest, Sampling
from phi3_dml import idle, layouts, opening

pytestmark = pytest.mark.runs
CPU = Device(backend="dml", id="CPU", kind="cpu", name="CPU")


def load(folder, purpose="conversation", device=CPU, **options):
    from phi3_dml import engine

    artifact = Artifact(path=folder, backend="dml", precision="fp16", manifest={"digest": "x"})
    return engine.load(artifact, device, options, purpose)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Wide enough for the kernels of full-size models, which treat the last of an odd number of rows differently."""
    sizes = {"hidden_size": 1024, "intermediate_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 16}
    return Checkpoint.open(write_random(tmp_path_factory.mktemp("wide"), sizes))


def greedy(checkpoint, prompt, count):
    whole = list(prompt)
    for _ in range(count):
        whole.append(int(logits(checkpoint, whole)[-1].argmax()))
    return whole[len(prompt) :]


def ask(engine, prompt, count, **more):
    return list(engine.generate(GenerationRequest(prompt_ids=prompt, max_new_tokens=count, **more)))


@pytest.fixture
def appended(monkeypatch):
    """The numbers of ids that were appended to a cache."""
    from phi3_dml import forward

    found = []
    original = forward.append

    def append(generator, given):
        found.append(len(given))
        original(generator, given)

    monkeypatch.setattr(forward, "append", append)
    return found


def kept(engine):
    return engine._decoder._kept


def test_whole_chunks_of_a_prompt_are_kept_and_the_rest_is_read_again(checkpoints, write_graph, ids, appended):
    engine = load(write_graph(checkpoints["phi-4"], layouts.CPU), "answer")
    engine._forward.reserve(64)
    appended.clear()
    answer = ask(engine, ids[:40], 3)
    assert appended == [32, 8, 1, 1]  # the third id of the answer is not fed
    appended.clear()
    ask(engine, [*ids[:40], *answer, 7, 8], 2)
    assert appended == [13, 1]
    appended.clear()
    ask(engine, ids[:32], 1)
    assert appended == [32]


def test_an_answer_is_read_again_while_nothing_is_asked(checkpoints, write_graph, ids, appended):
    engine = load(write_graph(checkpoints["phi-4"], layouts.CPU))
    answer = ask(engine, ids[:60], 12)
    assert kept(engine) == [tuple(ids[:32]), tuple(ids[32:60])]
    engine._idle.wait()
    whole = [*ids[:60], *answer]
    assert kept(engine) == [tuple(whole[:32]), tuple(whole[32:64])]
    appended.clear()
    ask(engine, [*whole, 7, 8], 1)
    assert appended == [10]


def test_requests_that_follow_each_other_do_not_wait(checkpoints, write_graph, ids, monkeypatch):
    monkeypatch.setattr(idle, "DELAY_S", 600.0)
    engine = load(write_graph(checkpoints["phi-4"], layouts.CPU))
    for _ in range(3):
        ask(engine, ids[:60], 12)
        assert kept(engine) == [tuple(ids[:32]), tuple(ids[32:60])]
    engine.close()


@pytest.mark.parametrize("name", TINY)
def test_prompt_lookup_changes_no_id(checkpoints, write_graph, ids, name, appended, monkeypatch):
    """Proposals of which the first tokens are right; also where the answer crosses longrope's original context."""
    engine = load(write_graph(checkpoints[name], layouts.CPU), "answer")
    assert "lookup" in engine.capabilities
    for prompt in (ids[:9], ids[:22]):
        expected = greedy(checkpoints[name], prompt, 16)

        class Knowing(PromptLookup):
            def propose(self, room, prompt=prompt, expected=expected):
                done = len(self._ids) - len(prompt)
                return (*expected[done : done + 3], *ids[:5])[:room]

        monkeypatch.setattr("phi3_core.decoding.answer.PromptLookup", Knowing)
        appended.clear()
        assert ask(engine, prompt, 16) == expected
        assert 9 in appended
        assert len(appended) < 10


def test_a_graph_with_the_logits_of_the_last_token_has_no_lookup(checkpoints, write_graph, ids):
    folder = write_graph(checkpoints["phi-4"], layouts.CPU)
    model = onnx.load(folder / "model.onnx")
    (head,) = (node for node in model.graph.node if "logits" in node.output)
    last = onnx.helper.make_node("Slice", [head.input[0], "last", "end", "one"], ["of_the_last"])
    position = list(model.graph.node).index(head)
    head.input[0] = "of_the_last"
    model.graph.node.insert(position, last)
    for name, value in (("last", -1), ("end", 1 << 31), ("one", 1)):
        model.graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [1], [value]))
    (output,) = (output for output in model.graph.output if output.name == "logits")
    output.type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, folder / "model.onnx")
    engine = load(folder, "answer")
    assert "lookup" not in engine.capabilities
    assert ask(engine, ids[:10], 6) == greedy(checkpoints["phi-4"], ids[:10], 6)
    with pytest.raises(BackendError, match="1 rows of logits for 3 tokens"):
        engine.logits(ids[:3])


@pytest.mark.parametrize("limit", [None, 24, 32, 64])
def test_chunks(limit):
    from phi3_dml.engine import chunks

    for length in range(1, 200):
        ids = list(range(length))
        found = chunks(ids, 32, limit)
        sizes = [len(chunk) for chunk in found]
        assert [token for chunk in found for token in chunk] == ids
        assert all(size == 32 for size in sizes[1:-1])
        if limit is not None and length > limit:
            assert min(length, limit + 1) <= sizes[0] <= limit + 32  # read with the long factors
        else:
            assert sizes[0] == min(length, 32)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("purpose", ["answer", "conversation"])
@pytest.mark.parametrize("shape", ["phi-3-mini-128k", "phi-3-medium", "wide int4"])
def test_logits_do_not_depend_on_earlier_requests(checkpoints, wide, write_graph, monkeypatch, shape, purpose, seed):
    """Bit for bit: after conversations that grow, fork and start over, and answers that were closed."""
    if shape in TINY:
        folder = write_graph(checkpoints[shape], layouts.CPU)
    else:
        scheme = Scheme(bits=4, group_size=32)
        folder = write_graph(wide, layouts.CPU, schemes={weight.name: scheme for weight in wide.linear})
    seen: list[bytes] = []

    class Recording(Sampler):
        def pick(self, logits, allowed=None):
            seen.append(logits.tobytes())
            return super().pick(logits, allowed)

    monkeypatch.setattr("phi3_core.decoding.answer.Sampler", Recording)

    def bits(engine, prompt, count):
        seen.clear()
        return ask(engine, prompt, count), list(seen)

    monkeypatch.setattr(idle, "DELAY_S", 0.0)
    used, random = load(folder, purpose), Random(seed)
    stories = [[random.randrange(3, 320) for _ in range(random.randrange(1, 60))] for _ in range(3)]
    asked = []
    for _ in range(25):
        story = random.choice(stories)
        prompt, count = story[: random.randrange(1, len(story) + 1)], random.randrange(1, 12)
        if random.random() < 0.2:
            stream = used.generate(GenerationRequest(prompt_ids=prompt, max_new_tokens=count))
            next(stream)
            stream.close()
            continue
        if random.random() < 0.4:
            used._idle.wait()
        found = bits(used, prompt, count)
        asked.append((prompt, count, found))
        if len(prompt) < 60:
            stories.append([*prompt, *found[0], *(random.randrange(3, 320) for _ in range(5))])
    fresh = load(folder, purpose)
    for prompt, count, found in asked:
        fresh._idle.stop()
        fresh._forget()
        assert bits(fresh, prompt, count) == found, (len(prompt), count)


@pytest.mark.parametrize("name", TINY)
def test_the_way_for_providers_that_cannot_rewind(checkpoints, write_graph, ids, name, monkeypatch):
    """DirectML's way, on the CPU: generators are never added to, and onnxruntime-genai chooses."""
    engine = load(write_graph(checkpoints[name], layouts.CPU))
    monkeypatch.setattr(engine, "_rewinds", False)
    monkeypatch.setattr(engine, "_forward", None)
    monkeypatch.setattr(engine, "_forget", lambda: None)
    for prompt in (ids[:5], ids[:20], ids[:30]):
        assert ask(engine, prompt, 16) == greedy(checkpoints[name], prompt, 16)


def state_window(folder, size, **more):
    """Let the configuration state a window, as builders of 0.18 do."""
    config = json.loads((folder / "genai_config.json").read_text())
    window = {"window_size": size, "slide_inputs": False, "slide_key_value_cache": False, "layers": [], **more}
    config["model"]["decoder"]["sliding_window"] = window
    (folder / "genai_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("layers", [[], [0, 1]])
@pytest.mark.parametrize("first", [5, 20, 30])
def test_beyond_a_window_that_the_configuration_states(checkpoints, write_graph, ids, first, layers):
    """The runtime would cut the KV cache to the window and 16 tokens more."""
    checkpoint = checkpoints["phi-3-mini-4k"]
    engine = load(state_window(write_graph(checkpoint, layouts.CPU), 11, layers=layers))
    assert engine.context_length == checkpoint.architecture.context
    expected = greedy(checkpoint, ids[:first], 16)
    assert ask(engine, ids[:first], 16) == expected
    assert ask(engine, ids[:first], 16) == expected  # rewound


def test_a_setting_that_the_runtime_does_not_know_is_said(checkpoints, write_graph):
    import onnxruntime_genai as og

    folder = state_window(write_graph(checkpoints["phi-3-mini-4k"], layouts.CPU), 11, cache_slack=0)
    if tuple(map(int, og.__version__.split(".")[:2])) >= (0, 16):
        load(folder)
    else:
        with pytest.raises(ModelError, match=r"is not for onnxruntime-genai .*cache_slack"):
            load(folder)


@pytest.mark.parametrize(("name", "size", "layers"), [("phi-4", 20, []), ("phi-3-mini-4k", 20, []), ("phi-4", 20, [1])])
def test_a_window_that_the_graph_does_not_have_limits_the_context(
    checkpoints, write_graph, ids, caplog, name, size, layers
):
    engine = load(state_window(write_graph(checkpoints[name], layouts.CPU), size, layers=layers))
    assert engine.context_length == size
    assert "the context is limited to 20 tokens" in caplog.text
    assert ask(engine, ids[:8], 12) == greedy(checkpoints[name], ids[:8], 12)
    with pytest.raises(PromptTooLongError):
        ask(engine, ids[:20], 1)


def test_a_window_of_the_model_that_the_graph_does_not_have_limits_the_context(checkpoints, write_graph, caplog):
    folder = write_graph(checkpoints["phi-4"], layouts.CPU)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sliding_window": 30}))
    assert load(folder).context_length == 30
    assert "the context is limited to 30 tokens: the graph has no sliding window" in caplog.text


@pytest.mark.parametrize("rewinds", [True, False])
def test_an_id_ends_an_answer_only_if_the_request_says_so(checkpoints, write_graph, ids, rewinds, monkeypatch):
    """Whatever ``genai_config.json`` says."""
    checkpoint = checkpoints["phi-4"]
    expected = greedy(checkpoint, ids[:10], 12)
    folder = write_graph(checkpoint, layouts.CPU)
    config = json.loads((folder / "genai_config.json").read_text())
    config["model"]["eos_token_id"] = [expected[3]]
    (folder / "genai_config.json").write_text(json.dumps(config))
    engine = load(folder)
    monkeypatch.setattr(engine, "_rewinds", rewinds)
    assert ask(engine, ids[:10], 12) == expected
    stop = expected[6]
    assert ask(engine, ids[:10], 12, stop_ids=[stop]) == expected[: expected.index(stop)]


@pytest.mark.parametrize("rewinds", [True, False])
def test_sampling_follows_its_seed(checkpoints, write_graph, ids, rewinds, monkeypatch):
    engine = load(write_graph(checkpoints["phi-4"], layouts.CPU))
    monkeypatch.setattr(engine, "_rewinds", rewinds)

    def told(seed):
        sampling = Sampling(temperature=1.5, top_k=50, top_p=0.95, seed=seed)
        return ask(engine, ids[:10], 20, sampling=sampling)

    assert told(1) == told(1)
    assert len({tuple(told(seed)) for seed in (1, 2, 3, None)}) > 1
    assert ask(engine, ids[:10], 12) == greedy(checkpoints["phi-4"], ids[:10], 12)


def test_room_is_made_for_the_request_alone_or_for_a_conversation(checkpoints, write_graph, ids):
    folder = write_graph(checkpoints["phi-4"], layouts.CPU)
    rooms = []
    for purpose in ("answer", "conversation"):
        engine = load(folder, purpose)
        ask(engine, ids[:10], 5)
        rooms.append(engine._forward.capacity)
    assert rooms == [15, 96]  # its context is 96


def test_what_does_not_fit_is_refused_before_the_runtime_sees_it(checkpoints, write_graph, ids):
    engine = load(write_graph(checkpoints["phi-4"], layouts.CPU))
    assert engine.context_length == 96
    with pytest.raises(PromptTooLongError, match="64 tokens of prompt and 40 of answer"):
        ask(engine, ids, 40)
    with pytest.raises(UsageError, match="not among the 320"):
        ask(engine, [320], 4)
    with pytest.raises(UsageError, match="JSON schema"):
        ask(engine, [5], 4, json_schema="{")
    with pytest.raises(UsageError, match="a JSON schema and prompt lookup"):
        ask(engine, [5], 4, json_schema="{}", lookup="on")


def test_json_and_the_change_to_the_long_context_do_not_go_together(checkpoints, write_graph, ids):
    engine = load(write_graph(checkpoints["phi-4-mini"], layouts.CPU))
    with pytest.raises(UsageError, match="within 24 tokens"):
        ask(engine, ids[:10], 20, json_schema="{}")


def test_a_folder_for_another_provider_is_refused(checkpoints, write_graph):
    with pytest.raises(ModelError, match="made for GPUs, in half precision; dml:CPU needs another form"):
        load(write_graph(checkpoints["phi-4"], layouts.DIRECTML))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"FOO": "1"}, "dml has no option FOO"), ({"intra_op_num_threads": "lots"}, "number of threads, not 'lots'")],
)
def test_options(checkpoints, write_graph, options, message):
    folder = write_graph(checkpoints["phi-4"], layouts.CPU)
    load(folder, intra_op_num_threads="1").close()
    with pytest.raises(UsageError, match=message):
        load(folder, **options)


def test_every_core_has_a_thread_unless_the_user_says_how_many():
    assert opening._session({}) == {"intra_op_num_threads": core_threads()}
    assert opening._session({"intra_op_num_threads": "3"}) == {"intra_op_num_threads": 3}

"""What a backend returns is checked before core uses it: each fault, and the sentence that names it."""

from __future__ import annotations

import io
import re
import textwrap

import phi3_core as phi3
import pytest
from phi3_core.errors import BackendError
from phi3_core.plugin import installed
from phi3_core.values import GenerationRequest
from phi3_core.worker.host import Worker

LIMIT_S = 30.0
IDS = [1, 2, 3]
VOCABULARY = 10


def started(plugins, tmp_path, changes: str) -> Worker:
    """A worker with an engine of the backend ``bad``."""
    plugins.add("bad", changes=changes)
    (backend,) = [backend for backend in installed()[0] if backend.name == "bad"]
    worker = Worker().open(backend)
    device = {"backend": "bad", "id": "CPU", "kind": "cpu", "name": "x"}
    artifact = {"path": str(tmp_path), "backend": "bad", "precision": "fp16"}
    worker.call("load", limit_s=LIMIT_S, artifact=artifact, device=device, options={}, purpose="answer")
    return worker


def generating(plugins, tmp_path, body: str) -> Worker:
    changes = f"import numpy as np\n@hookimpl\ndef generate(engine, request):\n{textwrap.indent(body, '    ')}\n"
    return started(plugins, tmp_path, changes)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("5.7", "yielded 5.7, a float, and not the integer of a token"),
        ("5.0", "yielded 5.0, a float"),
        ("True", "yielded True, a bool"),
        ("np.bool_(1)", "and not the integer of a token"),
        ("np.float32(3)", "and not the integer of a token"),
        ("None", "yielded None, a NoneType"),
        ("'7'", "yielded '7', a str"),
        ("[1]", r"yielded \[1\], a list"),
        ("[0] * 10**6", "a list, and not the integer of a token"),
        ("'word ' * 10**6", "a str, and not the integer of a token"),
        ("np.arange(3)", "a ndarray, and not the integer of a token"),
        ("-1", "yielded the id -1, which is not in the vocabulary of 0 to 9"),
        ("10", "yielded the id 10, which is not in the vocabulary of 0 to 9"),
        ("2**40", "yielded the id 1099511627776, which is not in the vocabulary of 0 to 9"),
        ("np.int64(-100)", "yielded the id -100, which is not in the vocabulary of 0 to 9"),
        ("10**5000", "which is not in the vocabulary of 0 to 9"),
    ],
)
def test_what_is_no_id_of_the_vocabulary_is_named(plugins, tmp_path, item, words):
    with generating(plugins, tmp_path, f"yield 4\nyield {item}") as worker:
        ids = worker.start(GenerationRequest(prompt_ids=IDS, max_new_tokens=5), vocabulary=VOCABULARY).ids()
        assert next(ids) == 4
        with pytest.raises(BackendError, match=f"^generate of phi3-bad 1.0 .*{words}") as caught:
            next(ids)
        assert len(caught.value.message) < 200
        assert worker.alive


def test_integers_of_numpy_are_ids(plugins, tmp_path):
    body = "yield from (np.int64(9), np.uint16(0), np.array(3), 7)"
    with generating(plugins, tmp_path, body) as worker:
        asked = GenerationRequest(prompt_ids=IDS, max_new_tokens=5)
        assert list(worker.start(asked, vocabulary=VOCABULARY).ids()) == [9, 0, 3, 7]


def test_ids_of_the_embeddings_padding_are_ids(plugins, source):
    """The tokenizer of the model has fewer tokens than its embedding has rows."""
    plugins.add("good", changes="@hookimpl\ndef generate(engine, request):\n    yield 32063\n")
    with phi3.load(source) as model:
        assert model.generate("Hello").completion_tokens == 1


def test_without_a_known_vocabulary_ids_still_fit_a_tokenizer(plugins, tmp_path):
    with generating(plugins, tmp_path, "yield from (2**31 - 1, 2**31)") as worker:
        ids = worker.generate(GenerationRequest(prompt_ids=IDS, max_new_tokens=5))
        assert next(ids) == 2**31 - 1
        with pytest.raises(BackendError, match="the id 2147483648, which is not in the vocabulary"):
            next(ids)


STUBBORN = {
    "a generator that goes on": """
        while True:
            try:
                yield 0
            except GeneratorExit:
                pass
    """,
    "an error in its end": """
        try:
            yield from iter(int, 1)  # no end
        finally:
            raise ValueError("the device is lost")
    """,
    "an exit in its end": """
        try:
            yield from iter(int, 1)  # no end
        finally:
            raise SystemExit(3)
    """,
}


@pytest.mark.parametrize("name", STUBBORN)
def test_an_iterator_that_cannot_be_closed_costs_no_later_answer(plugins, tmp_path, caplog, name):
    with generating(plugins, tmp_path, textwrap.dedent(STUBBORN[name])) as worker:
        for _ in range(3):
            ids = worker.generate(GenerationRequest(prompt_ids=IDS, max_new_tokens=10**9))
            assert next(ids) == 0
            ids.close()
        assert worker.alive
    (notice,) = [record.getMessage() for record in caplog.records]  # once, not with every answer
    assert notice.startswith("bad: generate of phi3-bad 1.0 returned an iterator that cannot be closed (")


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("context_length = '2048'", "context_length is '2048', and not a number of 1 or more"),
        ("context_length = 0", "context_length is 0, and not a number of 1 or more"),
        ("context_length = -1", "context_length is -1"),
        ("context_length = True", "context_length is True"),
        ("context_length = 64.0", "context_length is 64.0"),
        ("context_length = None", "context_length is None"),
        ("def context_length(self): return 64", "context_length is <bound method"),
        ("max_concurrency = 0", "max_concurrency is 0, and not a number of 1 or more"),
        ("max_concurrency = '1'", "max_concurrency is '1'"),
        ("max_concurrency = True", "max_concurrency is True"),
        ("max_concurrency = float('inf')", "max_concurrency is inf"),
        ("capabilities = ['logits']", r"capabilities are \['logits'\], and not a frozenset of words"),
        ("capabilities = 'logits'", "capabilities are 'logits', and not a frozenset of words"),
        ("capabilities = frozenset({1})", r"capabilities are frozenset\(\{1\}\), and not a frozenset of words"),
        ("capabilities = None", "capabilities are None"),
        ("capabilities = {'logits': True}", "capabilities are {'logits': True}"),
    ],
)
def test_an_engine_with_a_wrong_attribute_is_named_and_the_user_not_blamed(plugins, source, attribute, words):
    changes = f"Base = Engine\nclass Engine(Base):\n    {attribute}\n"
    plugins.add("bad", changes=changes)
    with pytest.raises(BackendError, match=f"^bad:CPU: load of phi3-bad 1.0 returned an engine whose {words}"):
        phi3.load(source)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("None", "returned None, not Engine"),
        ("object()", "returned an object (<object objec"),
        ("{'context_length': 64}", "returned a dict ({'context_length': 64}), not Engine"),
        ("type('E', (), {'context_length': 64})()", "returned an engine without max_concurrency, capabilities, close"),
        ("Half()", "returned an engine without close"),
    ],
)
def test_what_is_no_engine_is_named_with_what_it_lacks(plugins, source, engine, words):
    changes = f"""
        class Half:
            context_length, max_concurrency, capabilities = 64, 1, frozenset()
        @hookimpl
        def load(artifact):
            return {engine}
    """
    plugins.add("bad", changes=changes)
    with pytest.raises(BackendError, match=re.escape(f"bad:CPU: load of phi3-bad 1.0 {words}")):
        phi3.load(source)


def test_an_engine_with_numbers_of_numpy_is_loaded(plugins, source):
    changes = """
        import numpy as np
        Base = Engine
        class Engine(Base):
            context_length, capabilities = np.int32(64), {"logits"}
    """
    plugins.add("good", changes=changes)
    with phi3.load(source) as model:
        assert model.context_length == 64


TENSOR = """
class Tensor:
    def __init__(self, array): self.array = array
    def __array__(self, dtype=None, copy=None):
        if self.array is None:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        return self.array
"""


def scoring(plugins, tmp_path, returned: str) -> Worker:
    text = f"import numpy as np\n{TENSOR}\ngood = np.arange(30, dtype='f4').reshape(3, 10)\n"
    text += f"@hookimpl\ndef logits(engine, ids):\n    return {returned}\n"
    return started(plugins, tmp_path, text)


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("None", "returned a NoneType, and no array"),
        ("good.tolist()", "returned a list, and no array"),
        ("Tensor(None)", "returned a Tensor that numpy cannot read: Can't call numpy() on Tensor that requires grad"),
        ("good[None]", "returned an array of [1, 3, 10], and not of [3, 10]: a row per id, a column per token"),
        ("good[-1]", "returned an array of [10], and not of [3, 10]"),
        ("good[:2]", "returned an array of [2, 10], and not of [3, 10]"),
        ("good[:, :9]", "returned an array of [3, 9], and not of [3, 10]"),
        ("np.pad(good, ((0, 0), (0, 6)))", "returned an array of [3, 16], and not of [3, 10]"),
        ("good.T", "returned an array of [10, 3], and not of [3, 10]"),
        ("good.astype('i8')", "returned an array of int64, and not of floating-point numbers"),
        ("good.astype(object)", "returned an array of object, and not of floating-point numbers"),
        ("np.where(good == 12, np.nan, good)", "returned nan for the token 2 after position 1; 1 of 30 logits"),
        ("np.where(good > 27, -np.inf, good)", "returned -inf for the token 8 after position 2; 2 of 30 logits"),
        ("(good * 1e4).astype('f2')", "returned inf for the token 7 after position 0"),
        ("np.exp(good) / np.exp(good).sum(1, keepdims=True)", "returned probabilities, and not logits"),
        ("np.full((3, 10), 0.1, 'f2')", "returned probabilities, and not logits: every row sums to 1"),
    ],
)
def test_what_are_no_logits_is_named(plugins, tmp_path, returned, words):
    with scoring(plugins, tmp_path, returned) as worker:
        with pytest.raises(BackendError, match="^logits of phi3-bad 1.0 " + re.escape(words)):
            worker.call("logits", limit_s=LIMIT_S, ids=IDS, vocabulary=VOCABULARY)
        assert worker.alive


@pytest.mark.parametrize("returned", ["good", "good.astype('f2')", "good.astype('f8')", "Tensor(good)", "good[:]"])
def test_logits_of_any_floating_point_type_are_taken(plugins, tmp_path, returned):
    with scoring(plugins, tmp_path, returned) as worker:
        found = worker.call("logits", limit_s=LIMIT_S, ids=IDS, vocabulary=VOCABULARY)
        assert found.tolist() == [[row * 10.0 + column for column in range(10)] for row in range(3)]


BAD_IDS = """
@hookimpl
def detect(machine):
    return [Offer(device=Device(backend="bad", id="0", kind="dgpu", name="A card"), precisions=["fp16"])]

@hookimpl
def generate(engine, request):
    yield {item}
"""


@pytest.mark.parametrize("item", ["5.7", "-1", "2**40", "32064"])
def test_an_id_that_is_none_falls_back_as_other_failures_do(plugins, source, item, caplog):
    plugins.add("bad", changes=BAD_IDS.format(item=item))
    plugins.add("parrot")
    with phi3.load(source) as model:
        reply = model.generate("Hello")
    assert [attempt.device for attempt in reply.attempts] == ["bad:0", "parrot:CPU"]
    assert "Hello" in reply.text
    assert "bad:0: generate of phi3-bad 1.0 yielded" in caplog.text
    assert "continuing with parrot:CPU" in caplog.text


def test_a_named_device_with_wrong_ids_is_exit_code_5(plugins, source, run_main, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    plugins.add("bad", changes=BAD_IDS.format(item="2**40"))
    code, out, err = run_main("run", "--model", source, "--device", "bad:0", "Hello")
    assert (code, out.strip()) == (5, ""), err
    assert "bad:0: generate of phi3-bad 1.0 yielded the id 1099511627776" in err
    assert "unexpected" not in err


def test_an_answer_without_a_token_is_said_and_is_an_answer(plugins, source, caplog):
    plugins.add("mute", changes="@hookimpl\ndef generate(engine, request):\n    return iter(())\n")
    with phi3.load(source) as model:
        reply = model.generate("Hello")
    assert (reply.text, reply.completion_tokens, reply.finish_reason) == ("", 0, "stop")
    assert "mute:CPU: generate of phi3-mute 1.0 ended the answer without a token" in caplog.text


def test_long_messages_are_cut_and_the_traceback_has_all(plugins, tmp_path):
    with (
        generating(plugins, tmp_path, "raise RuntimeError('page ' * 10000)\nyield") as worker,
        pytest.raises(BackendError) as caught,
    ):
        list(worker.generate(GenerationRequest(prompt_ids=IDS, max_new_tokens=1)))
    assert caught.value.message.startswith("RuntimeError: page page")
    assert len(caught.value.message) < 700
    assert "page " * 10000 in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        ("BackendError('first\\n' + 'page ' * 10000, hint='more ' * 10000)", r"^first \| page page"),
        ("ValueError('page ' * 10**7)", "^ValueError: page page"),
        ("Odd()", "^Odd$"),
    ],
)
def test_no_message_is_longer_than_a_screen(plugins, tmp_path, raised, words):
    changes = f"""
        from phi3_core.errors import BackendError
        class Odd(Exception):
            def __str__(self): raise RuntimeError
        @hookimpl
        def load(artifact):
            raise {raised}
    """
    with pytest.raises(BackendError, match=words) as caught:
        started(plugins, tmp_path, changes)
    assert len(str(caught.value)) < 1300


def test_progress_may_be_counted_in_numbers_of_numpy(plugins, tmp_path):
    changes = """
        import numpy as np
        @hookimpl
        def quantize(output, progress):
            progress("feathers", np.int64(3), np.float32(4.5))
    """
    heard = []
    with started(plugins, tmp_path, changes) as worker:
        given = {"path": str(tmp_path), "model": "x"}
        device = {"backend": "bad", "id": "CPU", "kind": "cpu", "name": "x"}
        worker.call(
            "quantize",
            limit_s=LIMIT_S,
            progress=lambda *news: heard.append(news),
            source=given,
            device=device,
            recipe={"precision": "int4"},
            output=str(tmp_path),
        )
    assert heard == [("feathers", 3, 4.5)]

"""The whole way with a toy backend: obtaining, loading, streaming, and going on when an engine fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import phi3_core as phi3
import pytest
from batching import SLOW
from phi3_core.errors import BackendError, DiskFullError, ModelError, NoDeviceError, PromptTooLongError, UsageError

# What the parrot has heard when somebody says "Hello world" to it.
HEARD = "Hello world"


@pytest.fixture
def model(shared_parrot):
    return shared_parrot


def test_a_prompt_becomes_ids_and_ids_become_text(model):
    reply = model.generate("Hello world")
    assert reply.text.strip() == HEARD
    assert (reply.model, reply.device, reply.precision) == ("tiny", "parrot:CPU", "fp16")
    assert reply.finish_reason == "stop"
    assert reply.completion_tokens < reply.prompt_tokens
    assert [(attempt.device, attempt.outcome) for attempt in reply.attempts] == [("parrot:CPU", "answered")]
    assert reply.time_to_first_token_s > 0


def test_pieces_add_up_to_the_reply(model):
    with model.stream("Hello world") as stream:
        pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == stream.reply.text


def test_the_length_is_held(model):
    reply = model.generate("Hello world", max_new_tokens=1)
    assert (reply.completion_tokens, reply.finish_reason) == (1, "length")
    assert reply.decode_tokens_per_s is None


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(model):
    reply = model.generate("Hello world is the capital", stop=["world"])
    assert reply.text.strip() == "Hello"
    assert reply.finish_reason == "stop"
    assert model.generate("Hello world", stop="world").text.strip() == "Hello"


def test_a_conversation_is_one_prompt(model):
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "world"}]
    reply = model.chat([*messages, {"role": "user", "content": "the end"}])
    assert reply.prompt_tokens == model.count_tokens([*messages, {"role": "user", "content": "the end"}])
    assert "the end" in reply.text


def test_control_tokens_in_a_message_stay_text(model):
    plain = model.count_tokens([{"role": "user", "content": "x"}])
    reply = model.generate("x<|end|>x")
    assert reply.prompt_tokens > plain + 3  # <|end|> as text is several ids


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -1}, "temperature must be 0"),
        ({"top_p": 3}, "top-p"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"top_k": 1.5}, "top_k"),
        ({"stop": [""]}, "stop"),
        ({"tempature": 1}, "tempature"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_the_engine_sees_them(model, options, words):
    with pytest.raises(UsageError, match=words):
        model.generate("Hello", **options)
    assert model.generate("Hello").text.strip() == "Hello"


def test_prompts_that_make_no_sense_are_refused(model):
    for prompt in ("", "  \n"):
        with pytest.raises(UsageError, match="empty"):
            model.generate(prompt)
    with pytest.raises(UsageError):
        model.chat([])
    with pytest.raises(UsageError):
        model.chat([{"role": "pirate", "content": "arr"}])


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(model):
    long = "Hello " * 80
    count = model.count_tokens([{"role": "user", "content": long}])
    with pytest.raises(PromptTooLongError, match=rf"{count} tokens.* holds 64"):
        model.generate(long)


def test_what_fits_leaves_room_for_an_answer(model):
    messages = [{"role": "user", "content": "Hello " * 40}]
    count = model.count_tokens(messages)
    assert model.fits(messages)
    assert model.fits(messages, answer_tokens=64 - count)
    assert not model.fits(messages, answer_tokens=64 - count + 1)
    assert not model.fits([{"role": "user", "content": "Hello " * 10_000}])


def test_a_conversation_longer_than_the_context_is_called_one(model):
    turns = [{"role": role, "content": "Hello " * 30} for role in ("user", "assistant", "user")]
    with pytest.raises(PromptTooLongError, match=r"the conversation has \d+ tokens") as caught:
        model.chat(turns)
    assert "oldest messages" in caught.value.hint


def test_a_system_message_without_a_place_is_read_all_the_same(plugins, source, caplog):
    template = "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    (Path(source) / "chat_template.jinja").write_text(template, encoding="utf-8")
    plugins.add("parrot")
    with phi3.load(source, device="parrot") as model:
        assert model.generate("world", system="Hello").text.split() == ["Hello", "world"]
        assert model.generate("world").text.split() == ["world"]
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "no place for a system message" in said


def test_an_answer_is_cut_where_the_context_ends(model):
    prompt = "Hello " * 40
    reply = model.generate(prompt)
    assert reply.prompt_tokens + reply.completion_tokens == 64
    assert reply.finish_reason == "length"


def test_an_unfinished_stream_is_not_waited_for_by_its_own_thread(model):
    stream = model.stream("Hello world")
    next(stream)
    with pytest.raises(UsageError, match="still being streamed"):
        model.generate("Hello")
    with pytest.raises(UsageError, match="not ended|has ended"):
        _ = stream.reply
    stream.close()
    assert model.generate("Hello").text.strip() == "Hello"


def test_threads_take_turns(model):
    texts = []
    threads = [threading.Thread(target=lambda: texts.append(model.generate("Hello world").text)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [text.strip() for text in texts] == [HEARD] * 4


def test_the_event_loop_is_not_blocked(model):
    async def ask() -> tuple[list[str], list[str]]:
        async def collect():
            return [piece async for piece in model.astream("Hello world")]

        return tuple(await asyncio.gather(collect(), collect()))

    for pieces in asyncio.run(ask()):
        assert "".join(pieces).strip() == HEARD


def test_a_cancelled_task_frees_the_model(plugins, source):
    plugins.add("slow", changes=SLOW)
    with phi3.load(source, device="slow") as model:

        async def ask() -> None:
            async def forever():
                async for _ in model.astream("Hello world", max_new_tokens=50):
                    pass

            task = asyncio.create_task(forever())
            await asyncio.sleep(0.3)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        asyncio.run(ask())
        assert model.generate("Hello", max_new_tokens=2).completion_tokens == 2


def test_a_closed_model_says_so(plugins, source):
    plugins.add("parrot")
    model = phi3.load(source, device="parrot")
    model.close()
    model.close()
    with pytest.raises(UsageError, match="closed"):
        model.generate("Hello")


def test_the_second_time_the_artifact_is_there(plugins, source, home):
    plugins.add("parrot")
    with phi3.load(source, device="parrot"):
        pass
    (folder,) = (home / "artifacts").glob("tiny-*/parrot-fp16")
    manifest = json.loads((folder / "phi3.json").read_text(encoding="utf-8"))
    assert manifest["recipe"]["precision"] == "fp16"
    assert {"parrot.txt", "tokenizer.json", "config.json"} <= set(manifest["files"])
    (plugins.site / "phi3_parrot.py").write_text(
        (plugins.site / "phi3_parrot.py").read_text(encoding="utf-8").replace("feathers", "no') or 1/0 #"),
        encoding="utf-8",
    )
    with phi3.load(source, device="parrot") as model:
        assert model.generate("Hello").text.strip() == "Hello"


# --- failing ------------------------------------------------------------------------------------------------------

# What core/tests/faults does with each surface is not repeated here: a process that dies in load, or halfway.
DIES_HALFWAY = """
@hookimpl
def generate(engine, request):
    import os, time
    for token in request.prompt_ids[1:3]:
        yield token
    time.sleep(0.3)
    os.abort()
"""
FAILS = {
    "dies in generate": "@hookimpl\ndef generate(engine, request):\n    import os; os.abort()\n    yield 1\n",
    "raises in load": "@hookimpl\ndef load(artifact, device, options):\n    raise RuntimeError('no memory')\n",
    "hangs in load": "@hookimpl\ndef load(artifact, device, options):\n    import time; time.sleep(600)\n",
    "raises halfway": (
        "@hookimpl\ndef generate(engine, request):\n    yield request.prompt_ids[1]\n    raise OSError('device lost')\n"
    ),
}
GPU = """
@hookimpl
def detect(machine):
    return [Offer(device=Device(backend="{name}", id="0", kind="dgpu", name="Flaky 3000"), precisions=["fp16"])]
"""


@pytest.mark.parametrize("how", FAILS)
def test_an_engine_that_fails_costs_one_sentence_and_not_the_answer(plugins, source, how, caplog, monkeypatch):
    if how == "hangs in load":
        monkeypatch.setenv("PHI3_LOAD_LIMIT", "4")
    plugins.add("flaky", changes=GPU.replace("{name}", "flaky") + FAILS[how])
    plugins.add("parrot")
    with phi3.load(source) as model:
        reply = model.generate("Hello world")
    assert reply.device == "parrot:CPU"
    assert reply.text.strip().startswith("Hello")
    assert [attempt.device for attempt in reply.attempts] == ["flaky:0", "parrot:CPU"]
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    (sentence,) = [text for text in said if "flaky" in text]
    assert sentence.startswith("flaky:0: ")
    assert sentence.endswith("; continuing with parrot:CPU")


def test_what_was_said_before_the_failure_is_not_said_again(plugins, source):
    plugins.add("flaky", changes=GPU.replace("{name}", "flaky") + DIES_HALFWAY)
    continues = """
        @hookimpl
        def generate(engine, request):
            yield len(request.prompt_ids)
    """
    plugins.add("parrot", changes=continues)
    with phi3.load(source) as model:
        reply = model.generate("Hello world", max_new_tokens=3)
    # Two ids came from the first engine; the second was asked to go on behind them, for one more.
    assert reply.completion_tokens == 3
    assert reply.finish_reason == "length"


@pytest.mark.parametrize("how", FAILS)
def test_a_device_that_was_named_is_not_replaced(plugins, source, how, monkeypatch):
    if how == "hangs in load":
        monkeypatch.setenv("PHI3_LOAD_LIMIT", "4")
    plugins.add("flaky", changes=GPU.replace("{name}", "flaky") + FAILS[how])
    plugins.add("parrot")
    with pytest.raises(BackendError, match="flaky:0"), phi3.load(source, device="flaky:0") as model:
        model.generate("Hello world")


def test_a_backend_that_cannot_have_the_model_is_passed_over(plugins, source, caplog):
    plugins.add("flaky", changes=GPU.replace("{name}", "flaky") + "\ndel quantize\n")
    plugins.add("parrot")
    with phi3.load(source) as model:
        assert model.device == "parrot:CPU"
    assert any("not available for flaky:0" in record.getMessage() for record in caplog.records)


def test_a_model_that_nobody_can_load_is_an_error(plugins, source, tmp_path):
    plugins.add("parrot")
    folder = tmp_path / "strange"
    folder.mkdir()
    (folder / "weights.xyz").write_bytes(b"1")
    with pytest.raises(ModelError, match="finds no weights"):
        phi3.load(str(folder), device="parrot")


def test_a_wish_that_nothing_fits_is_an_error(plugins, source):
    plugins.add("parrot")
    with pytest.raises(NoDeviceError, match="int4"):
        phi3.load(source, device="parrot", precision="int4")
    with pytest.raises(UsageError):
        phi3.load(source, precision="int5")
    with pytest.raises(UsageError):
        phi3.load(source, policy="speed")


def test_a_quantizer_that_fails_leaves_nothing(plugins, source, home):
    plugins.add(
        "parrot",
        changes="@hookimpl\ndef quantize(output):\n    (output / 'x').touch()\n    raise OSError(28, 'No space')\n",
    )
    with pytest.raises(DiskFullError, match="no space is left"):
        phi3.load(source, device="parrot")
    assert not list(home.glob("artifacts/*/*"))
    assert [path for path in (home / "staging").iterdir() if path.is_dir()] == []


NOISE = """
import numpy

@hookimpl
def logits(engine, ids):
    return numpy.random.default_rng(0).normal(size=(len(ids), {vocabulary})).astype("float32")
"""


def test_what_answers_like_noise_is_refused_and_not_published(plugins, phi3_folder, tmp_path, home):
    from phi3_core.testing.checkpoints import TINY, write_random

    config = {**TINY["phi-3-mini-4k"], "vocab_size": 600}
    folder = write_random(tmp_path / "checkpoint", config)
    shutil.copyfile(phi3_folder / "tokenizer.json", folder / "tokenizer.json")
    plugins.add("parrot", changes=NOISE.replace("{vocabulary}", "600"))
    with pytest.raises(ModelError, match="answers like noise"):
        phi3.load(str(folder), device="parrot")
    assert not list(home.glob("artifacts/*/*"))


SCRIPT = """
import phi3_core as phi3
model = phi3.load({source!r}, device="parrot")
print(model.generate("Hello world").text.strip())
"""


def test_a_script_needs_no_guard_and_may_forget_to_close(plugins, source, tmp_path):
    plugins.add("parrot")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(source=source), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{HEARD}\n", "")


@pytest.mark.parametrize("options", [{"stop": ["a", "\ud800"]}, {"stop": "\udcff"}, {"json_schema": '{"\udc00": 1}'}])
def test_options_that_are_not_unicode(model, options):
    with pytest.raises(UsageError, match=f"{min(options)} is not valid Unicode"):
        model.generate("Hello", **options)


def test_an_id_that_the_tokenizer_does_not_name_is_taken_where_the_vocabulary_is_unknown(plugins, source):
    """Embeddings have rows for padding, which have no name and no text."""
    config = Path(source, "config.json")
    config.write_text(json.dumps({"model_type": "phi3"}), encoding="utf-8")
    changes = """
        @hookimpl
        def generate(engine, request):
            yield request.prompt_ids[1]
            yield 50_000
    """
    plugins.add("parrot", changes=changes)
    with phi3.load(source, device="parrot") as model:
        reply = model.generate("Hello world")
    assert (reply.completion_tokens, reply.text.strip()) == (2, "Hello")

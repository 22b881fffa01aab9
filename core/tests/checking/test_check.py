"""The first time that an artifact runs on a device, its answers are compared with known ones."""

from __future__ import annotations

import io
import json
import shutil
import sys
from importlib import resources
from pathlib import Path

import phi3_core as phi3
import pytest
from phi3_core.paths import read_json, write_json
from phi3_core.testing.checkpoints import write_random

MODEL = "phi-3-mini-4k-instruct"
GOOD = Path(__file__).parents[1].joinpath("testing", "good_backend.py").read_text(encoding="utf-8")
GRAPH = resources.files("phi3_core").joinpath("scaffold/templates/graph.py.template").read_text(encoding="utf-8")
CARD = """
import os

STATE = os.environ.get("PHI3_TEST_STATE", "")

@hookimpl
def detect(machine):
    driver = "2" if "updated" in STATE else "1"
    card = Device(backend=NAME, id="0", kind="dgpu", name="A card", driver=driver)
    return [Offer(device=card, precisions=["fp16"])]

@hookimpl
def load(artifact, options, purpose):
    from phi3_core.backend import Checkpoint, read_limits
    import numpy
    from numpy_graph import Graph

    if "swapped" in STATE and purpose != "evaluation":
        exact = Graph._attention

        def attention(graph, index, qkv):
            queries, keys, values = numpy.split(qkv, 3, axis=1)
            return exact(graph, index, numpy.concatenate([keys, queries, values], axis=1))

        Graph._attention = attention
    return Engine(Checkpoint.open(artifact.path), read_limits(artifact))
"""
# A model that does nothing but continue what it has read before, as trained ones do.
COPIES = """
import os

STATE = os.environ.get("PHI3_TEST_STATE", "")
Engine.context_length = 8192

@hookimpl
def detect(machine):
    card = Device(backend="copying", id="0", kind="gpu", name="A card", driver="1")
    cpu = Device(backend="copying", id="CPU", kind="cpu", name="A processor")
    return [Offer(device=each, precisions=["fp16"]) for each in ((card, cpu) if "cpu" in STATE else (card,))]

@hookimpl
def load(artifact, device):
    engine = Engine()
    engine.noisy = STATE.split()[0] if STATE and device.kind == "gpu" else ""
    return engine

@hookimpl
def generate(engine, request):
    ids = list(request.prompt_ids)
    if os.environ.get("PHI3_TEST_LOG"):
        with open(os.environ["PHI3_TEST_LOG"], "a", encoding="utf-8") as log:
            print(len(ids), file=log)
    for number in range(request.max_new_tokens):
        noise = {"always": True, "long": len(ids) > 2048}.get(engine.noisy, False)
        end = ids[-6:]
        places = [place for place in range(len(ids) - 7, -1, -1) if ids[place : place + 6] == end]
        token = 33 + (number * 7) % 50 if noise or not places else ids[places[0] + 6]
        yield token
        ids.append(token)
"""


@pytest.fixture
def random_source(phi3_folder, tmp_path) -> str:
    """Random weights with a tokenizer."""
    folder = tmp_path / "random"
    shutil.copytree(phi3_folder, folder)
    write_random(folder, {"max_position_embeddings": 160, "vocab_size": 512})
    return str(folder)


@pytest.fixture(autouse=True)
def _nothing_on_stdin(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))


@pytest.fixture
def log(tmp_path, monkeypatch) -> Path:
    """The lengths of the prompts that a copying engine has got."""
    file = tmp_path / "prompts"
    monkeypatch.setenv("PHI3_TEST_LOG", str(file))
    return file


def test_a_good_device_passes_once_and_is_named_when_an_update_breaks_it(plugins, random_source, monkeypatch, run_main):
    (plugins.site / "numpy_graph.py").write_text(GRAPH, encoding="utf-8")
    plugins.add("good", GOOD + CARD)
    with phi3.load(random_source, device="good:0") as model:
        expected = model.generate("Hello", max_new_tokens=3).text
    (file,) = (plugins.site.parent / "home" / "checks").glob("*.json")
    assert read_json(file)["conditions"]["driver"] == "1"
    (manifest,) = (plugins.site.parent / "home").glob("artifacts/*/*/phi3.json")
    assert len(read_json(manifest)["answers"]["chains"]) == 16

    monkeypatch.setenv("PHI3_TEST_STATE", "swapped")
    with phi3.load(random_source, device="good:0") as model:  # it has passed, and is not asked again
        assert model.generate("Hello", max_new_tokens=3).text != expected

    monkeypatch.setenv("PHI3_TEST_STATE", "swapped updated")
    code, _, err = run_main("run", "-m", random_source, "-d", "good:0", "--refresh", "Hello")
    assert code == 5, err
    assert "good:0: it worked with the driver 1, and gives wrong answers with the driver 2: after" in err
    assert "it says" in err
    _, out, _ = run_main("devices", "--json")
    assert "gives wrong answers" in json.loads(out)["candidates"][0]["failure"]["reason"]
    assert run_main("run", "-m", random_source, "-d", "good:0", "--no-check", "--max-new-tokens", "3", "Hello")[0] == 0

    plugins.add("parrot")
    _, out, err = run_main("run", "-m", random_source, "--refresh", "Hello")
    assert "Hello" in out  # the parrot's: it is tried first, since the card has failed


def test_the_next_device_is_taken_with_a_sentence(plugins, source, monkeypatch, run_main):
    plugins.add("copying", changes=COPIES)
    plugins.add("parrot")
    monkeypatch.setenv("PHI3_TEST_STATE", "long")
    code, out, err = run_main("run", "-m", source, "Hello")
    assert code == 0, err
    assert "Hello" in out
    assert "copying:0: phi3-copying 1.0 gives wrong answers: after 2200 tokens that end in" in err
    assert "; continuing with parrot:CPU" in err


def test_short_and_long_prompts_are_copied_and_the_second_run_asks_nothing(plugins, source, log):
    plugins.add("copying", changes=COPIES)
    with phi3.load(source, device="copying:0"):
        pass
    lengths = [int(each) for each in log.read_text(encoding="utf-8").split()]
    assert len(lengths) == 2
    assert lengths[0] < 1000
    assert lengths[1] > 2048
    with phi3.load(source, device="copying:0"):
        pass
    assert len(log.read_text(encoding="utf-8").split()) == 2
    with phi3.load(source, device="copying:0", options={"MODE": "odd"}):  # other numbers may come out
        pass
    assert len(log.read_text(encoding="utf-8").split()) == 4


def test_a_cpu_tells_a_bad_device_from_weights_that_cannot_copy(plugins, source, monkeypatch):
    plugins.add("copying", changes=COPIES)
    monkeypatch.setenv("PHI3_TEST_STATE", "always")
    with phi3.load(source, device="copying:0"):  # it may be the weights
        pass
    shutil.rmtree(plugins.site.parent / "home" / "checks")
    monkeypatch.setenv("PHI3_TEST_STATE", "always cpu")
    with pytest.raises(phi3.WrongAnswersError, match="copying:0: .* gives wrong answers"):
        phi3.load(source, device="copying:0", refresh=True)
    with phi3.load(source) as model:
        assert model.device == "copying:CPU"
    phi3.load(source, device="copying:0", check=False).close()


def test_published_weights_copy_or_the_device_is_wrong(plugins, source, monkeypatch):
    plugins.add("copying", changes=COPIES)
    with phi3.load(source, device="copying:0", check=False):
        pass
    (made,) = (plugins.site.parent / "home").glob("artifacts/*/copying-fp16")
    published = made.parents[1] / MODEL / made.name
    shutil.copytree(made, published)
    content = read_json(published / "phi3.json")
    write_json(published / "phi3.json", {**content, "model": MODEL, "source": {"repository": "somebody/phi-3"}})
    monkeypatch.setenv("PHI3_TEST_STATE", "always")
    with pytest.raises(phi3.BackendError, match="gives wrong answers"):
        phi3.load(MODEL, device="copying:0")
    monkeypatch.setenv("PHI3_TEST_STATE", "")
    phi3.load(MODEL, device="copying:0").close()


def test_a_damaged_record_is_checked_again(plugins, source, log):
    plugins.add("copying", changes=COPIES)
    phi3.load(source, device="copying:0").close()
    (file,) = (plugins.site.parent / "home" / "checks").glob("*.json")
    file.write_text('{"format": 1, "conditions": []}', encoding="utf-8")
    phi3.load(source, device="copying:0").close()
    assert len(log.read_text(encoding="utf-8").split()) == 4
    assert read_json(file)["conditions"]["driver"] == "1"


def test_contexts_that_are_too_short_for_the_text_are_believed(plugins, source, monkeypatch):
    plugins.add("copying", changes=COPIES + "\nEngine.context_length = 32\n")
    monkeypatch.setenv("PHI3_TEST_STATE", "always cpu")
    phi3.load(source, device="copying:0").close()

"""The sample model on the library's CPU fallback, through the public interface: real weights, a real worker process."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import phi3_core as phi3
import psutil
import pytest
from phi3_core.errors import BackendError, ModelError
from phi3_core.plugin import installed
from phi3_core.store.entry import ArtifactKey
from phi3_core.store.store import Store
from phi3_core.text.tokenizer import Tokenizer
from phi3_core.values import Device, GenerationRequest
from phi3_core.worker.host import Worker

FRANCE = "What is the capital of France?"
STORY = "Tell me a story about a lighthouse."


@pytest.fixture(autouse=True)
def _one_store(sample_store):
    """Every test here has the store that the model was loaded from.

    An engine that takes too long to heed a cancel, as on a busy machine, is killed, and loaded once more when it is
    next asked: by a process that has the environment of that moment.
    """


@pytest.fixture(scope="module")
def artifact(sample_home, model):
    """The folder of the sample model's artifact, which loading the model made."""
    return sample_home / "artifacts" / "sample" / "npu-fp16"


def test_it_answers(model):
    reply = model.generate(FRANCE)
    assert "Paris" in reply.text
    assert reply.finish_reason == "stop"
    assert (reply.device, reply.precision) == ("npu:CPU", "fp16")
    assert model.context_length == 8192


def ids_of(model, prompt, count):
    """What the engine itself answers, which no tokenizer has touched."""
    request = GenerationRequest(prompt_ids=prompt, max_new_tokens=count, stop_ids=(2,))
    return model._session.engine.worker.generate(request)


@pytest.mark.filterwarnings("ignore")
def test_the_ids_are_those_of_plain_transformers(sample_home, artifact, model):
    import torch
    import transformers

    theirs = transformers.Phi3ForCausalLM.from_pretrained(sample_home / "sources" / "sample").float().eval()
    tokenizer = Tokenizer.from_folder(artifact)
    prompt = tokenizer.encode_chat([{"role": "user", "content": STORY}])
    ids = theirs.generate(torch.tensor([prompt]), max_new_tokens=10, do_sample=False, eos_token_id=2)
    assert list(ids_of(model, prompt, 10)) == ids[0, len(prompt) :].tolist()


def test_a_conversation_goes_on(model):
    messages = [{"role": "user", "content": FRANCE}]
    answer = model.chat(messages).text
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "And of Italy?"}]
    assert "Rome" in model.chat(messages, max_new_tokens=8).text


def test_the_library_stays_in_its_process_and_its_files_in_a_folder_of_ours(sample_home, artifact, model, tmp_path):
    assert "intel_npu_acceleration_library" not in sys.modules
    assert not Path("cache").exists()
    digest = json.loads((artifact / "phi3.json").read_text(encoding="utf-8"))["digest"]
    (kept,) = (sample_home / "engines" / digest[:16]).glob("npu-CPU-*")
    assert list((kept / "0" / "cache").glob("*.blob"))
    assert (kept / "0" / "whole").is_file()


def folder_of(model):
    """The current folder of the model's worker process."""
    return Path(psutil.Process(model._session.engine.worker._process.pid).cwd())


def test_two_models_at_once_have_a_folder_each(sample_store, artifact, model):
    with phi3.load("sample", device="npu:CPU", precision="fp16") as other:
        assert other.generate(FRANCE, max_new_tokens=1).text == model.generate(FRANCE, max_new_tokens=1).text
        first, second = folder_of(model), folder_of(other)
    digest = json.loads((artifact / "phi3.json").read_text(encoding="utf-8"))["digest"]
    (kept,) = (sample_store / "engines" / digest[:16]).glob("npu-CPU-*")
    assert first.parent.samefile(kept)
    assert second.parent.samefile(kept)
    assert first != second


def test_it_is_never_chosen_by_itself(sample_store, monkeypatch):
    found = phi3.survey()
    (offer,) = [offer for offer in found.offers if str(offer.device) == "npu:CPU"]
    assert not offer.automatic
    assert "for tests" in offer.notes


def test_an_npu_that_is_not_there_is_an_error_and_not_the_cpu(sample_home, artifact, model):
    backends, _ = installed()
    found = Store(sample_home).artifact("sample", ArtifactKey(backend="npu", precision="fp16"))
    worker = Worker().open(next(backend for backend in backends if backend.name == "npu"))
    device = Device(backend="npu", id="NPU", kind="npu", name="one that is not there")
    try:
        with pytest.raises(BackendError, match="the library finds no NPU that it can use"):
            worker.call("load", limit_s=300, artifact=found, device=device, options={}, purpose="answer")
    finally:
        worker.kill()


def test_a_folder_that_lost_its_manifest_is_loaded_as_it_is(sample_store, artifact, tmp_path):
    folder = shutil.copytree(artifact, tmp_path / "mine", ignore=shutil.ignore_patterns("phi3.json"))
    before = sorted(sample_store.glob("artifacts/*/*"))
    with phi3.load(str(folder), device="npu:CPU") as loaded:
        assert loaded.precision == "fp16"
        assert "Paris" in loaded.generate(FRANCE, max_new_tokens=7).text
    assert sorted(sample_store.glob("artifacts/*/*")) == before


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("model.npu", b"layers.29.mlp.down_proj", b"layers.29.mlp.down_porj", "damaged: it has no tensor"),
        ("model.npu", b'precision": "fp16"', b'precision": "int8"', "holds int8 weights for npu, not fp16"),
        (
            "config.json",
            b'"max_position_embeddings',
            b'"max_position_embeddingz',
            "does not say how long its context is",
        ),
    ],
)
def test_a_damaged_folder_is_named(sample_store, artifact, tmp_path, file, old, new, message):
    """Damage that the files' sizes do not show, which core looks at."""
    folder = tmp_path / "broken"
    shutil.copytree(artifact, folder)
    content = (folder / file).read_bytes()
    assert content.count(old) == 1
    (folder / file).write_bytes(content.replace(old, new))
    with pytest.raises(ModelError, match=message):
        phi3.load(str(folder), device="npu:CPU")

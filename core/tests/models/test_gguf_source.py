"""A GGUF file as a model: what is made of it, and when it is loaded as it is."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

import gguf_files
import pytest
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.store.store import Store
from phi3_core.testing.checkpoints import TINY, write_random

ECHO = """
from phi3_core import Device, Offer, hookimpl

class Engine:
    context_length, max_concurrency, capabilities = 64, 1, frozenset()
    def close(self):
        pass

@hookimpl
def detect(machine):
    device = Device(backend="echo", id="CPU", kind="cpu", name="An echo")
    return [Offer(device=device, precisions=["fp16", "int8", "int4"])]

@hookimpl
def load(artifact, device, options):
    return Engine()

@hookimpl
def generate(engine, request):
    said = [token for token in request.prompt_ids if token not in request.stop_ids]
    yield from said[: request.max_new_tokens]
"""
QUANTIZES = """
@hookimpl
def quantize(source, recipe, output):
    from phi3_core.backend import Checkpoint
    parameters = Checkpoint.open(source.path).parameters
    (output / "echo.txt").write_text(f"{recipe.precision} {parameters}", encoding="utf-8")
"""
LOADS_AS_IT_IS = """
@hookimpl
def recognize(path):
    return "int4" if path.is_file() or list(path.glob("*.gguf")) else None
"""


@pytest.fixture
def tiny(tmp_path):
    return write_random(tmp_path / "tiny", TINY["phi-4"], dtype="F32")


@pytest.fixture
def file(tiny, tmp_path):
    return gguf_files.convert(tiny, tmp_path / "models" / "tiny.gguf")


@pytest.fixture(autouse=True)
def _surroundings(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))


@pytest.fixture
def echo(run_main):
    """Runs a command on the backend of this module, whatever else is installed."""

    def run(*arguments):
        return run_main(*arguments, *(() if arguments[:2] == ("models", "show") else ("--device", "echo")))

    return run


@pytest.fixture
def phi3(echo, plugins):
    """A backend that quantizes, and repeats what it is asked."""
    plugins.add("echo", ECHO + QUANTIZES)
    return echo


def quantized(path: Path, tiny: Path, kind: str) -> Path:
    """The file of a checkpoint with matrices of one type."""
    metadata = gguf_files.metadata_of(tiny) | gguf_files.sentencepiece(size=320)
    return gguf_files.write(path, "phi3", metadata, gguf_files.tensors_of(tiny, kind=lambda _: kind))


def artifact() -> tuple[Path, dict]:
    """The only artifact in the store, and its manifest."""
    (entry,) = Store().entries()
    return entry.path, dict(entry.manifest)


def test_a_file_is_quantized_once_and_asked(phi3, file, tiny):
    code, out, err = phi3("run", "-m", file, "Hi")
    assert code == 0
    assert "Hi" in out
    assert "tiny.gguf is read as original weights" in err
    folder, manifest = artifact()
    assert (folder / "echo.txt").read_text(encoding="utf-8") == f"fp16 {Checkpoint.open(tiny).parameters}"
    assert "gguf_types" not in manifest["source"]
    code, _, err = phi3("run", "-m", file, "Hi")
    assert (code, "from the store" in err, "is read" in err) == (0, True, False)


@pytest.mark.parametrize(("kind", "precision"), [("Q4_0", "int4"), ("Q5_1", "int8"), ("Q8_0", "int8"), ("F16", "fp16")])
def test_the_precision_is_that_of_the_file(phi3, tiny, tmp_path, kind, precision):
    file = quantized(tmp_path / "models" / "m.gguf", tiny, kind)
    code, _, err = phi3("run", "-m", file, "Hi")
    assert code == 0
    _, manifest = artifact()
    assert manifest["precision"] == precision
    assert manifest["source"].get("gguf_types") == (None if kind == "F16" else [kind])
    assert (f"is quantized already ({kind})" in err) == (kind != "F16")
    assert (f"{kind} is kept where the engine holds it" in err) == (kind in {"Q4_0", "Q8_0"})


def test_a_precision_that_is_asked_for(phi3, tiny, tmp_path):
    file = quantized(tmp_path / "models" / "m.gguf", tiny, "Q8_0")
    assert phi3("run", "-m", file, "-p", "int4", "Hi")[0] == 0
    assert artifact()[1]["precision"] == "int4"


def test_another_file_under_the_same_name_is_another_model(phi3, file, tiny):
    assert phi3("run", "-m", file, "Hi")[0] == 0
    gguf_files.convert(tiny, file, **{"tokenizer.chat_template": "changed {{ messages[0]['content'] }}"})
    os.utime(file, ns=(1, 1))
    code, out, _ = phi3("run", "-m", file, "Hi")
    assert (code, "changed" in out) == (0, True)


def test_links_blobs_folders_and_parts(phi3, file, tmp_path):
    blob = shutil.copyfile(file, tmp_path / "sha256-aa")
    (folder := tmp_path / "one").mkdir()
    shutil.copyfile(file, folder / "any.gguf")
    (folder / "mmproj.gguf").write_bytes(b"GGUF")
    for path in (blob, folder):
        assert phi3("run", "-m", path, "Hi")[0] == 0
    shutil.copyfile(file, folder / "two.gguf")
    code, _, err = phi3("run", "-m", folder, "Hi")
    assert code == 4
    assert "holds 2 GGUF models: any.gguf, two.gguf" in err


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode on Windows")
def test_a_name_that_is_not_utf8(phi3, file):
    named = file.rename(Path(os.fsdecode(bytes(file.parent) + b"/caf\xe9.gguf")))
    code, out, _ = phi3("run", "-m", named, "Hi")
    assert (code, "Hi" in out) == (0, True)


def test_a_missing_part_is_named(phi3, file, tmp_path):
    second = file.rename(tmp_path / "models" / "m-00002-of-00002.gguf")
    code, _, err = phi3("run", "-m", second, "Hi")
    assert code == 4
    assert str(tmp_path / "models" / "m-00001-of-00002.gguf") in err


@pytest.fixture
def base(tiny, tmp_path):
    """A file without a template, whose tokens are not Phi-3's."""
    tokens = gguf_files.byte_level("gpt-4o", ["<|endoftext|>", "<|im_start|>"], size=320)
    keys = ("chat_template", "ggml.scores", "ggml.unknown_token_id", "ggml.padding_token_id")
    without = {f"tokenizer.{key}": None for key in keys}
    return gguf_files.convert(tiny, tmp_path / "models" / "base.gguf", **without, **tokens)


def test_without_a_template_nothing_is_quantized_to_be_asked(phi3, base):
    code, _, err = phi3("run", "-m", base, "Hi")
    assert code == 4
    assert f"{base} has no chat template" in err
    assert "chat_template.jinja" in err
    assert Store().entries() == []


def test_a_template_beside_the_file_is_taken(phi3, base):
    (base.parent / "chat_template.jinja").write_text("{{ 'asked: ' + messages[0]['content'] }}", encoding="utf-8")
    code, out, _ = phi3("run", "-m", base, "Hi")
    assert (code, "asked: Hi" in out) == (0, True)


def test_phi3_without_a_template_has_its_own(phi3, tiny, tmp_path):
    file = gguf_files.convert(tiny, tmp_path / "models" / "m.gguf", **{"tokenizer.chat_template": None})
    assert phi3("run", "-m", file, "Hi")[0] == 0


@pytest.fixture
def loading(echo, plugins):
    """A backend that loads GGUF files as they are, and does not quantize."""
    plugins.add("echo", ECHO + LOADS_AS_IT_IS)
    return echo


def test_a_backend_that_loads_it_as_it_is_gets_the_file(loading, file):
    code, out, _ = loading("run", "-m", file, "-p", "int4", "Hi")
    assert (code, "Hi" in out) == (0, True)
    assert Store().entries() == []


def test_what_was_pulled_can_be_named(loading, file, tmp_path):
    blob = file.rename(tmp_path / "sha256-aa")
    assert loading("models", "pull", blob)[0] == 0
    folder, manifest = artifact()
    assert (manifest["model"], manifest["context_length"]) == ("sha256-aa", 96)
    assert {file.name for file in folder.iterdir()} >= {"sha256-aa.gguf", "tokenizer.json", "config.json"}
    assert not (folder / "gguf.json").exists()
    blob.unlink()
    assert loading("run", "-m", "sha256-aa", "-p", "int4", "Hi")[0] == 0


def test_a_backend_that_neither_loads_nor_quantizes_is_named(loading, file):
    code, _, err = loading("run", "-m", file, "-p", "fp16", "Hi")
    assert code == 4
    assert "the backend does not quantize" in err


def test_the_reference_exporter_reads_no_gguf(phi3, file):
    code, _, err = phi3("quantize", file, "--precision", "int8", "--exporter", "reference")
    assert code == 2
    assert "the reference exporter does not read GGUF files" in err


def test_what_a_file_is_said_to_be(phi3, file):
    _, out, _ = phi3("models", "show", file, "--json")
    assert (json.loads(out)["model"], json.loads(out)["form"]) == ("tiny", "source")
    assert (json.loads(out)["gguf"]["architecture"], json.loads(out)["gguf"]["tensor_types"]) == ("phi3", ["F32"])
    assert phi3("run", "-m", file, "Hi")[0] == 0
    _, out, _ = phi3("models", "show", file)
    assert "GGUF, architecture phi3, F32, context of 96 tokens" in out
    assert "echo fp16, " in out, "what was made of it"
    code, _, err = phi3("models", "show", gguf_files.write(file.parent / "a.gguf", "qwen2", {}, {}))
    assert (code, "has the architecture 'qwen2'" in err) == (4, True)
    code, out, _ = phi3("models", "pull", "--source", file, "--json")
    assert (code, json.loads(out)["path"]) == (0, str(file))

"""What the word after --model means."""

from __future__ import annotations

import json
import os

import pytest
from phi3_core.errors import ModelError
from phi3_core.models.local import import_into_store
from phi3_core.models.ref import look_up
from phi3_core.models.request import ResolvedModel
from phi3_core.store.entry import ArtifactKey
from phi3_core.store.store import Store
from phi3_core.values import Artifact


def test_a_name_of_the_catalogue_wins_over_a_folder(home, tmp_path, monkeypatch):
    (tmp_path / "sample").mkdir()
    monkeypatch.chdir(tmp_path)
    assert look_up("sample", Store()).form == "named"


def test_a_name_of_the_store_is_known(home):
    Store().make_artifact("mine", ArtifactKey(backend="acme", precision="int4"), lambda _: {})
    assert look_up("mine", Store()).form == "named"


def test_folders_and_files_are_told_apart(home, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text(json.dumps({"model_type": "phi3"}), encoding="utf-8")
    (source / "model.safetensors").write_bytes(b"")
    assert look_up(str(source), Store()).form == "source"
    folder = tmp_path / "ir"
    folder.mkdir()
    (folder / "openvino_model.xml").write_text("", encoding="utf-8")
    assert look_up(str(folder), Store()).form == "artifact"
    file = tmp_path / "x.GGUF"
    file.write_bytes(b"GGUF")
    found = look_up(str(file), Store())
    assert (found.form, found.name, found.path) == ("source", "x", file)


@pytest.mark.parametrize(
    ("word", "words", "hint"),
    [
        ("", "empty", "list"),
        ("phi-3-mini-4k", "unknown model 'phi-3-mini-4k'", "phi-3-mini-4k-instruct"),
        ("zzz", "unknown model 'zzz'", "list"),
        ("phi3", "unknown model 'phi3'", "did you mean phi-3-mini-4k-instruct?"),
        ("Phi-3", "unknown model 'Phi-3'", "did you mean phi-3-mini-4k-instruct?"),
        ("phi3:latest", "unknown model", "did you mean phi-3-mini-4k-instruct?"),
        ("phi3:medium", "unknown model", "did you mean phi-3-medium-4k-instruct?"),
        ("phi3.5", "unknown model", "did you mean phi-3.5-mini-instruct?"),
        ("phi4", "unknown model", "did you mean phi-4?"),
        ("phi4-mini:3.8b", "unknown model", "did you mean phi-4-mini-instruct?"),
        ("./nowhere", "no file or folder", "list"),
        ("no//where", "no file or folder", "list"),
    ],
)
def test_unknown_words_are_refused_with_a_hint(home, word, words, hint):
    with pytest.raises(ModelError, match=words) as caught:
        look_up(word, Store())
    assert hint in caught.value.hint


@pytest.mark.parametrize("with_config", [False, True])
def test_an_adapter_is_refused_by_name(home, tmp_path, with_config):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    about = {"peft_type": "LORA", "base_model_name_or_path": "acme/base"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(about), encoding="utf-8")
    if with_config:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "phi3"}), encoding="utf-8")
    with pytest.raises(ModelError, match="is an adapter for acme/base, such as LoRA, not a model") as caught:
        look_up(str(tmp_path), Store())
    assert tmp_path.as_posix() in caught.value.hint
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="has an adapter for acme/base, such as LoRA, beside its weights"):
        look_up(str(tmp_path), Store())


@pytest.mark.parametrize("content", ['{"model_type": "phi3",}', "[]", ""])
def test_a_damaged_configuration_is_said_to_be_one(home, tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"no config\.json"):
        look_up(str(tmp_path), Store())
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=r"config\.json (cannot be read: .*line 1|is not a JSON object)"):
        look_up(str(tmp_path), Store())


def test_pickles_and_pointers_are_refused_by_name(home, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "phi3"}), encoding="utf-8")
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(ModelError, match=r"no weights in safetensors, but pickles .*pytorch_model\.bin"):
        look_up(str(tmp_path), Store())
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    for name in ("model.safetensors", "phi.gguf"):
        (tmp_path / name).write_text(pointer, encoding="utf-8")
    with pytest.raises(ModelError, match=r"model\.safetensors is a Git LFS pointer"):
        look_up(str(tmp_path), Store())
    with pytest.raises(ModelError, match=r"phi\.gguf is a Git LFS pointer"):
        look_up(str(tmp_path / "phi.gguf"), Store())


@pytest.mark.parametrize(
    ("kind", "words"),
    [("phi3_v", "Phi-3-vision"), ("phi3small", "Phi-3-small"), ("phimoe", "mixture"), ("phi", "Phi-2")],
)
def test_relatives_of_the_family_are_refused_by_name(home, tmp_path, kind, words):
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    with pytest.raises(ModelError, match=words):
        look_up(str(tmp_path), Store())


def test_models_further_down_are_named(home, tmp_path):
    for name in ("acme/phi-GGUF/phi-Q4_K_M.gguf", "acme/vision-GGUF/v-Q8_0.gguf", "acme/vision-GGUF/mmproj-v.gguf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"GGUF")
    listed = r"holds GGUF files: acme/phi-GGUF/phi-Q4_K_M\.gguf, acme/vision-GGUF/v-Q8_0\.gguf \("
    with pytest.raises(ModelError, match=listed) as caught:
        look_up(str(tmp_path), Store())
    named = str(caught.value.hint).removeprefix("name one of them: ")
    assert look_up(named, Store()).form == "source"


def test_what_is_no_model_is_refused_by_name(home, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelError, match="is empty"):
        look_up(str(empty), Store())
    (tmp_path / "notes.txt").write_text("", encoding="utf-8")
    with pytest.raises(ModelError, match="neither a model folder nor a GGUF file"):
        look_up(str(tmp_path / "notes.txt"), Store())
    llama = tmp_path / "llama"
    llama.mkdir()
    (llama / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"no config\.json"):
        look_up(str(llama), Store())
    (llama / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    with pytest.raises(ModelError, match="'llama', not of the Phi-3 family"):
        look_up(str(llama), Store())
    (llama / "model.safetensors").rename(llama / "openvino_model.bin")
    with pytest.raises(ModelError, match="'llama', not of the Phi-3 family"):
        look_up(str(llama), Store())


ODD = [
    *(
        "SAMPLE",
        "Mine",
        "sample.",
        "sample ",
        "sample:x",
        "C:sample",
        "D:x",
        "nul",
        "con",
        "aux.txt",
        "com1",
        "LPT9.a.b",
    ),
    *(".", "...", "a<b", 'say"', "what?", "*", "a|b", "tab\t", "line\n", "null\0", "Mode\u0300le", "MODÈLE"),
    *("~nobody-here", r"..\artifacts\mine", "../artifacts/mine", "mine/", "mine\\", "./mine"),
]


@pytest.mark.parametrize("word", ODD)
def test_what_is_not_exactly_a_name_of_the_store_is_refused_in_one_line(home, tmp_path, monkeypatch, run_main, word):
    for name in ("mine", "Modèle", "sample"):
        Store().make_artifact(name, ArtifactKey(backend="acme", precision="int4"), lambda _: {})
    empty = tmp_path / "elsewhere"
    empty.mkdir()
    monkeypatch.chdir(empty)
    for command in (("show", word), ("rm", word), ("verify", word), ("pull", word, "--source")):
        code, out, err = run_main("models", *command)
        assert (code, out) == (4, ""), command
        assert "unexpected" not in err
        (line,) = err.split("\n")[:-1]
        assert line.endswith(")")
    assert [entry.model for entry in Store().entries()] == ["Modèle", "mine", "sample"]


@pytest.mark.skipif(os.name == "nt", reason="a path that exists on Windows is a device there")
def test_what_is_neither_a_file_nor_a_folder_is_refused(home):
    with pytest.raises(ModelError, match="neither a file nor a folder"):
        look_up(os.devnull, Store())


def test_a_repository_has_the_name_that_the_store_has_it_under(home):
    assert look_up("Owner/Name", Store()).store_name == "Owner--Name"
    Store().make_source("owner--name", lambda _: {})
    found = look_up("Owner/Name", Store())
    assert (found.store_name, found.repository) == ("owner--name", "Owner/Name")


@pytest.mark.parametrize(
    "word", ["owner/name.", "owner/name-", "ow--ner/name", "owner/na--me", "owner/a..b", "a/" + "b" * 95]
)
def test_names_that_no_repository_has_are_refused(home, word):
    with pytest.raises(ModelError, match="no file or folder"):
        look_up(word, Store())


@pytest.mark.parametrize("name", ["mine", "Mode\u0300le", "x" * 100, "nul.d" if os.name != "nt" else "nil.d"])
def test_a_path_has_a_store_name_that_every_system_can_store(home, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "openvino_model.xml").write_text("", encoding="utf-8")
    found = look_up(str(folder), Store())
    assert len(found.store_name.encode()) <= 60
    made = Store().make_artifact(found.store_name, ArtifactKey(backend="acme", precision="int4"), lambda _: {})
    assert Store().artifact(found.store_name, ArtifactKey(backend="acme", precision="int4")) == made


def imported(folder, name):
    folder.mkdir(exist_ok=True)
    (folder / "weights.bin").write_bytes(b"w")
    artifact = Artifact(path=folder, backend="acme", precision="int4", manifest={})
    return import_into_store(name, ResolvedModel(artifact=artifact, tokenizer_dir=folder, origin=""), Store())


def test_what_is_pulled_from_a_folder_has_a_name_that_means_one_model_everywhere(home, tmp_path):
    assert imported(tmp_path / "a", "Mode\u0300le").path.parent.name == "Modèle"
    assert look_up("Modèle", Store()).form == "named"
    imported(tmp_path / "a", "Modèle")
    for name, words in (
        ("MODÈLE", "the store has 'Modèle'"),
        ("Phi-4", "the catalogue has 'phi-4'"),
        ("nul.gguf", "devices"),
        ("a:b", "no names with :"),
        ("x" * 250, "longer than"),
    ):
        with pytest.raises(ModelError, match=words) as caught:
            imported(tmp_path / "a", name)
        assert "rename" in caught.value.hint
    assert [entry.model for entry in Store().entries()] == ["Modèle"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_settings_written_by_editors_of_windows_are_read(home, tmp_path, encoding):
    text = ("\ufeff" if encoding == "utf-16-be" else "") + json.dumps({"model_type": "phi3"}, indent=1)
    (tmp_path / "config.json").write_bytes(text.replace("\n", "\r\n").encode(encoding))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert look_up(str(tmp_path), Store()).form == "source"

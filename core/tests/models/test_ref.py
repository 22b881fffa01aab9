"""What the word after --model means."""

from __future__ import annotations

import json

import pytest
from phi3_core.errors import ModelError
from phi3_core.models.ref import look_up
from phi3_core.store.entry import ArtifactKey
from phi3_core.store.store import Store


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
    assert (found.form, found.name, found.path) == ("artifact", "x", file)


@pytest.mark.parametrize(
    ("word", "words", "hint"),
    [
        ("", "empty", "list"),
        ("phi-3-mini-4k", "unknown model 'phi-3-mini-4k'", "phi-3-mini-4k-instruct"),
        ("zzz", "unknown model 'zzz'", "list"),
        ("./nowhere", "no file or folder", "list"),
        ("no/where/else", "no file or folder", "list"),
    ],
)
def test_unknown_words_are_refused_with_a_hint(home, word, words, hint):
    with pytest.raises(ModelError, match=words) as caught:
        look_up(word, Store())
    assert hint in caught.value.hint


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

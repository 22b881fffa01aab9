"""Ollama's own store: its manifests and folders stand for the GGUF file that they name."""

from __future__ import annotations

import json

import pytest
from phi3_core.errors import ModelError
from phi3_core.models.ref import look_up
from phi3_core.store.store import Store

WEIGHTS = "application/vnd.ollama.image.model"
ADAPTER = "application/vnd.ollama.image.adapter"


@pytest.fixture
def models(home, tmp_path):
    """The folder of Ollama's models, as ``ollama pull phi3`` leaves it."""
    root = tmp_path / "models"
    (root / "blobs").mkdir(parents=True)
    add(root, "latest", {WEIGHTS: "sha256:1234", "application/vnd.ollama.image.license": "sha256:5678"})
    (root / "blobs" / "sha256-1234").write_bytes(b"GGUF")
    (root / "blobs" / "sha256-5678").write_bytes(b"MIT")
    return root


def add(root, tag, layers):
    file = root.joinpath("manifests", "registry.ollama.ai", "library", "phi3", tag)
    file.parent.mkdir(parents=True, exist_ok=True)
    listed = [{"mediaType": kind, "digest": digest, "size": 4} for kind, digest in layers.items()]
    file.write_text(json.dumps({"schemaVersion": 2, "layers": listed}), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "inner",
    [
        ".",
        "blobs",
        "manifests",
        "manifests/registry.ollama.ai/library/phi3",
        "manifests/registry.ollama.ai/library/phi3/latest",
    ],
)
def test_a_manifest_or_folder_stands_for_the_weights(models, inner):
    found = look_up(str(models / inner), Store())
    assert (found.name, found.form, found.path) == ("phi3-latest", "source", models / "blobs" / "sha256-1234")


def test_one_of_several_models_is_not_guessed(models):
    other = add(models, "medium", {WEIGHTS: "sha256:abcd"})
    with pytest.raises(ModelError, match="holds models of Ollama: phi3:latest, phi3:medium") as caught:
        look_up(str(models), Store())
    assert str(other.with_name("latest")) in str(caught.value.hint)
    with pytest.raises(ModelError, match="phi3:medium is not whole: .*sha256-abcd is missing") as caught:
        look_up(str(other), Store())
    assert caught.value.hint == "ollama pull phi3:medium"


def test_an_adapter_is_named_as_one(models):
    file = add(models, "mine", {WEIGHTS: "sha256:1234", ADAPTER: "sha256:9999"})
    with pytest.raises(ModelError, match="phi3:mine is an adapter"):
        look_up(str(file), Store())


def test_other_files_and_folders_there_are_what_they_are(models):
    assert look_up(str(models / "blobs" / "sha256-1234"), Store()).name == "sha256-1234"
    with pytest.raises(ModelError, match="neither a model folder nor a GGUF file"):
        look_up(str(models / "blobs" / "sha256-5678"), Store())
    own = models / "own"
    own.mkdir()
    with pytest.raises(ModelError, match="is empty"):
        look_up(str(own), Store())

"""How a repository, a folder or file of it, and a revision are named."""

from __future__ import annotations

import pytest
from phi3_core.errors import ModelError
from phi3_core.hub.address import parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("word", "repository", "revision", "path"),
    [
        ("owner/name", "owner/name", None, ""),
        ("owner/name/", "owner/name", None, ""),
        ("owner/name/cpu/int4", "owner/name", None, "cpu/int4"),
        ("owner/name/cpu/int4/", "owner/name", None, "cpu/int4"),
        ("owner/name@v1.0", "owner/name", "v1.0", ""),
        ("owner/name@main", "owner/name", None, ""),
        ("owner/name@v1/cpu", "owner/name", "v1", "cpu"),
        ("owner/name/cpu@v1", "owner/name", "v1", "cpu"),
        ("owner/name/cpu@feature/x", "owner/name", "feature/x", "cpu"),
        ("owner/name@refs/pr/7", "owner/name", "refs/pr/7", ""),
        ("owner/name@refs/pr/7/cpu", "owner/name", "refs/pr/7", "cpu"),
        ("owner/name@feature%2Fx/cpu", "owner/name", "feature/x", "cpu"),
        (f"owner/name@{COMMIT}", "owner/name", COMMIT, ""),
        ("owner/name/model-q4.gguf", "owner/name", None, "model-q4.gguf"),
        ("hf://owner/name@v1/cpu", "owner/name", "v1", "cpu"),
        ("hf://models/owner/name", "owner/name", None, ""),
        ("https://huggingface.co/owner/name", "owner/name", None, ""),
        ("https://huggingface.co/owner/name?library=transformers", "owner/name", None, ""),
        ("https://huggingface.co/owner/name/tree/main", "owner/name", None, ""),
        ("https://huggingface.co/owner/name/tree/main/cpu/int4", "owner/name", None, "cpu/int4"),
        ("https://huggingface.co/owner/name/blob/v1/a%20b.gguf", "owner/name", "v1", "a b.gguf"),
        ("https://huggingface.co/owner/name/resolve/main/m.gguf?download=true", "owner/name", None, "m.gguf"),
        ("https://huggingface.co/owner/name/tree/refs%2Fpr%2F7", "owner/name", "refs/pr/7", ""),
        ("https://huggingface.co/owner/name/tree/refs/pr/7/cpu", "owner/name", "refs/pr/7", "cpu"),
        (f"https://huggingface.co/owner/name/commit/{COMMIT}", "owner/name", COMMIT, ""),
        ("https://huggingface.co/owner/name/discussions/3", "owner/name", None, ""),
        ("http://www.huggingface.co/owner/name/", "owner/name", None, ""),
        ("huggingface.co/owner/name", "owner/name", None, ""),
        ("hf.co/owner/name", "owner/name", None, ""),
        ("https://mirror.example:8080/owner/name/tree/v1", "owner/name", "v1", ""),
    ],
)
def test_what_an_address_names(monkeypatch, word, repository, revision, path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example:8080")
    found = parse(word)
    assert found is not None
    assert (found.repository, found.revision, found.path) == (repository, revision, path)
    assert parse(str(found)) == found


@pytest.mark.parametrize(
    "word",
    [
        *(
            "name",
            "owner/name.",
            "ow--ner/name",
            "a/" + "b" * 95,
            "./owner/name",
            "../owner/name",
            "/owner/name",
            "~/a",
        ),
        *(
            "owner/name/../x",
            "owner/name//x",
            "owner/name/./x",
            "owner/name@v1/x@v2",
            "owner/name@",
            "owner/name@..",
            "owner/name@a/../b",
            "C:/owner/name",
        ),
        *("owner/na\nme", "owner/name/x\ny", "owner\\name", "owner/name/x\\y", "", "/"),
    ],
)
def test_what_is_no_address(word) -> None:
    assert parse(word) is None


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("https://example.org/owner/name", "not an address of the hub"),
        ("https://huggingface.co.example.org/owner/name", "not an address of the hub"),
        ("http://[", "is not an address: "),
        ("https://[::1/owner/name", "is not an address: "),
        ("https://huggingface.co/owner", "names no model"),
        ("https://huggingface.co/", "names no model"),
        ("https://huggingface.co/datasets/owner/name", "datasets, not a model"),
        ("hf://spaces/owner/name", "spaces, not a model"),
    ],
)
def test_urls_of_something_else_are_refused(word, words) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        parse(word)
    assert "OWNER/NAME" in caught.value.hint


def test_a_url_does_not_depend_on_a_mirror_that_has_none(monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://[")
    found = parse("https://huggingface.co/owner/name")
    assert found is not None
    assert found.repository == "owner/name"

"""What core adds to the weights that a backend made."""

from __future__ import annotations

from phi3_core.store import sidecars


def test_what_is_missing_is_copied_and_what_is_there_stays(tmp_path):
    source, output = tmp_path / "source", tmp_path / "output"
    for folder in (source, output):
        folder.mkdir()
    for name in ("config.json", "tokenizer.model", "chat_template.jinja", "model.safetensors", "modeling.py"):
        (source / name).write_text("the source's", encoding="utf-8")
    (output / "config.json").write_text("the backend's", encoding="utf-8")
    (output / "weights.bin").touch()
    sidecars.copy_sidecars(source, output)
    assert {file.name: file.read_text(encoding="utf-8") for file in output.iterdir()} == {
        "config.json": "the backend's",
        "tokenizer.model": "the source's",
        "chat_template.jinja": "the source's",
        "weights.bin": "",
    }

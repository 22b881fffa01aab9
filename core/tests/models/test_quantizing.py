"""``phi3 quantize`` and ``phi3 eval``: what was asked for is what is there, and what was done is said."""

from __future__ import annotations

import io
import json
import shutil
import sys
import threading
from pathlib import Path

import pytest
from phi3_core.store.store import Store
from phi3_core.testing.checkpoints import TINY, write_random

GPU = """
@hookimpl
def detect(machine):
    return [Offer(device=Device(backend="flaky", id="0", kind="dgpu", name="A card"), precisions=["int4"])]

@hookimpl
def quantize(output):
    raise OSError("boom")
"""
INT4 = """
@hookimpl
def detect(machine):
    return [Offer(device=Device(backend="parrot", id="CPU", kind="cpu", name="A parrot"), precisions=["fp16", "int4"])]

@hookimpl
def quantize(recipe, output, progress):
    import time
    time.sleep(0.5)
    (output / "parrot.txt").write_text(str(recipe.group_size), encoding="utf-8")
    return {"maker": "7"}
"""
LOGITS = """
@hookimpl
def logits(engine, ids):
    import numpy
    return numpy.full((len(ids), 600), {value}, "float32")
"""

EXACT = """
@hookimpl
def quantize(source, output, progress):
    from phi3_core.backend import Checkpoint, save_weights
    save_weights(Checkpoint.open(source.path), output, progress)

@hookimpl
def load(artifact, options):
    from phi3_core.backend import check_options
    check_options("{name}", options, ())
    engine = Engine()
    engine.path = artifact.path
    return engine

@hookimpl
def logits(engine, ids):
    from phi3_core.backend import Checkpoint
    from phi3_core.checkpoint.forward import logits
    return logits(Checkpoint.open(engine.path), ids)
"""
"""A backend that computes what core computes."""


@pytest.fixture
def phi3(run_main, plugins):
    plugins.add("parrot", changes=INT4)

    def run(*arguments):
        code, out, err = run_main(*arguments, "--json")
        return code, json.loads(out) if out else None, err

    return run


@pytest.fixture
def checkpoint(phi3_folder, tmp_path):
    """Original weights that core can run."""
    folder = write_random(tmp_path / "checkpoint", {**TINY["phi-3-mini-4k"], "vocab_size": 600})
    shutil.copyfile(phi3_folder / "tokenizer.json", folder / "tokenizer.json")
    return folder


def quantizing(source, *arguments):
    return "quantize", source, "-d", "parrot", "--precision", "int4", *arguments


def test_two_with_different_recipes_at_once_have_what_they_asked_for(phi3, source):
    from phi3_core.models.request import ModelRequest
    from phi3_core.pipeline import fetch
    from phi3_core.selection import DeviceRequest
    from phi3_core.values import Recipe

    found = {}

    def make(size):
        device, recipe = DeviceRequest(device="parrot", precision="int4"), Recipe(precision="int4", group_size=size)
        artifact = fetch(ModelRequest(model=source, device=device, recipe=recipe)).resolved.artifact
        found[size] = artifact.manifest["recipe"]["group_size"]

    threads = [threading.Thread(target=make, args=(size,)) for size in (32, 64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {32: 32, 64: 64}


def test_a_device_that_is_passed_over_is_named(phi3, plugins, source):
    plugins.add("flaky", changes=GPU)
    code, made, err = phi3("quantize", source, "--precision", "int4")
    assert (code, made["device"]) == (0, "parrot:CPU")
    assert "boom; continuing with parrot:CPU" in err


def test_the_same_again_is_there_and_another_recipe_is_made(phi3, source, tmp_path):
    text = tmp_path / "mine.txt"
    text.write_text("a text", encoding="utf-8")
    made = "quantized from the original weights"
    there = "already in the store"
    assert phi3(*quantizing(source))[1]["how"] == made
    assert phi3(*quantizing(source))[1]["how"] == there
    assert phi3(*quantizing(source, "--group-size", 64))[1]["how"] == made
    first = phi3(*quantizing(source, "--calibration", text))[1]
    assert first["how"] == made
    assert first["recipe"]["extra"]["calibration"].startswith("sha256:")
    assert phi3(*quantizing(source, "--calibration", text))[1]["how"] == there
    text.write_text("another text", encoding="utf-8")
    assert phi3(*quantizing(source, "--calibration", text))[1]["how"] == made
    (entry,) = Store().entries()
    assert entry.manifest["tools"]["phi3-parrot"] == "1.0"
    assert entry.manifest["tools"]["maker"] == "7"


def test_what_was_not_checked_is_when_asked_to(phi3, plugins, checkpoint):
    plugins.add("noisy", changes=INT4.replace("parrot", "noisy") + LOGITS.format(value="0"))
    asked = ("quantize", checkpoint, "-d", "noisy", "--precision", "int4")
    assert phi3(*asked, "--no-check")[0] == 0
    code, found, err = phi3(*asked, "--no-check")
    assert code == 0, err
    assert found["how"] == "already in the store"
    code, _, err = phi3(*asked)
    assert code == 4
    assert "answers like noise" in err


def test_an_evaluation_of_noise_says_so(phi3, plugins, checkpoint):
    plugins.add("noisy", changes=INT4.replace("parrot", "noisy") + LOGITS.format(value="0"))
    assert phi3("quantize", checkpoint, "-d", "noisy", "--precision", "int4", "--no-check")[0] == 0
    code, report, err = phi3("eval", checkpoint, "-d", "noisy", "--precision", "int4")
    assert (code, report["vocabulary"]) == (0, 600)
    assert report["kl_mean"] == pytest.approx(report["kl_guessing"])
    assert "the output is noise: it agrees with the original in" in err
    assert "its perplexity is 600 instead of" in err
    assert "int4, from the store, on noisy:CPU" in err


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("float('nan')", "returned nan for the token 0 after position 0"),
        ("float('-inf')", "returned -inf for the token 0 after position 0"),
        ("1 / 600", "returned probabilities, and not logits"),
    ],
)
@pytest.mark.parametrize("command", ["eval", "quantize"])
def test_what_are_no_logits_is_an_error_of_the_backend(phi3, plugins, checkpoint, command, value, words):
    plugins.add("noisy", changes=INT4.replace("parrot", "noisy") + LOGITS.format(value=value))
    asked = (checkpoint, "-d", "noisy", "--precision", "int4")
    if command == "eval":
        assert phi3("quantize", *asked, "--no-check")[0] == 0
    code, _, err = phi3(command, *asked)
    assert code == 5
    assert f"noisy:CPU: logits of phi3-noisy 1.0 {words}" in err
    assert command == "eval" or Store().entries() == []


def test_columns_that_are_missing_are_an_error_of_the_backend_and_not_of_the_user(phi3, plugins, checkpoint):
    changes = INT4.replace("parrot", "noisy") + LOGITS.format(value="0").replace("600", "599")
    plugins.add("noisy", changes=changes)
    code, _, err = phi3("quantize", checkpoint, "-d", "noisy", "--precision", "int4")
    assert code == 5
    assert "noisy:CPU: logits of phi3-noisy 1.0 returned an array of [512, 599], and not of [512, 600]" in err


def test_a_backend_without_logits_is_named_before_anything_is_made(phi3, checkpoint):
    code, _, err = phi3("eval", checkpoint, "-d", "parrot", "--precision", "int4")
    assert code == 5
    assert "parrot:CPU: parrot (phi3-parrot 1.0) does not implement the hook logits" in err
    assert "phi3 plugins lists the hooks of each backend; choose one with --device" in err
    assert Store().entries() == []


def test_a_backend_without_logits_is_passed_over(phi3, plugins, checkpoint):
    plugins.add("scores", changes=INT4.replace("parrot", "scores") + LOGITS.format(value="0"))
    code, report, err = phi3("eval", checkpoint, "--precision", "fp16")
    assert code == 4  # noise
    assert "hook logits; continuing with scores:CPU" in err
    assert report is None


def add_bad(plugins, lines):
    """Install a backend whose ``quantize`` has these lines."""
    hook = f"@hookimpl\ndef quantize(source, output):\n    {lines}\n"
    plugins.add("bad", changes=f"{INT4.replace('parrot', 'bad')}\n{hook}")


WRONG_OUTPUTS = [
    ("pass", "left no weights in its output"),
    ("(output / 'weights').mkdir()", "left no weights in its output"),
    ("(output / 'weights.bin').touch()", "left no weights in its output"),
    ("(output / 'config.json').write_text('{}')", "left no weights in its output"),
    (
        "(output / 'w.bin').symlink_to(source.path / 'config.json')",
        "left a link in its output instead of a file: w.bin",
    ),
    ("(output / 'w.bin').symlink_to('/nowhere')", "left a link in its output instead of a file: w.bin"),
    (
        "(output / 'w').mkdir(); (output / 'w' / 'a').symlink_to(source.path)",
        "a link in its output instead of a file: w/a",
    ),
    pytest.param(
        *("import os; os.mkfifo(output / 'w.bin')", "neither a file nor a folder: w.bin"),
        marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files"),
    ),
    ("output.rmdir()", "has removed or replaced the folder it was to fill"),
    ("output.rmdir(); output.symlink_to(source.path)", "has removed or replaced the folder it was to fill"),
    ("output.rmdir(); output.write_text('7')", "has removed or replaced the folder it was to fill"),
]


@pytest.mark.parametrize(("line", "words"), WRONG_OUTPUTS)
def test_an_output_without_weights_of_its_own_is_not_published(phi3, plugins, source, line, words):
    if sys.platform == "win32" and "symlink" in line:
        pytest.skip("links need a privilege on Windows")
    add_bad(plugins, line)
    code, _, err = phi3("quantize", source, "-d", "bad", "--precision", "int4")
    assert code == 5
    assert "bad:CPU: quantize of phi3-bad 1.0 " in err
    assert words in err
    assert Store().entries() == []
    assert phi3("quantize", source, "-d", "parrot", "--precision", "int4")[0] == 0
    assert phi3("quantize", source, "-d", "bad", "--precision", "int4")[0] == 5  # the same again, whatever it has left


@pytest.mark.parametrize("place", ["output.parent / 'stray.bin'", "source.path / 'stray.bin'"])
def test_what_is_written_outside_of_the_output_is_named(phi3, plugins, source, place):
    lines = f"(output / 'w.bin').write_bytes(b'7'); ({place}).write_bytes(b'7')"
    add_bad(plugins, lines)
    code, _, err = phi3("quantize", source, "-d", "bad", "--precision", "int4")
    assert code == 5
    assert "bad:CPU: quantize of phi3-bad 1.0 wrote outside its output: " in err
    assert "stray.bin" in err
    assert Store().entries() == []


def test_a_backend_that_leaves_nothing_is_passed_over(phi3, plugins, source):
    plugins.add("flaky", changes=GPU.replace('raise OSError("boom")', "pass"))
    code, made, err = phi3("quantize", source, "--precision", "int4")
    assert (code, made["device"]) == (0, "parrot:CPU")
    assert "left no weights in its output; continuing with parrot:CPU" in err


@pytest.mark.parametrize("tools", ["{'maker': 7}", "{1: 'x'}", "{'maker': object()}"])
def test_tools_that_are_no_versions_are_named(phi3, plugins, source, tools):
    lines = f"(output / 'w.bin').write_bytes(b'7'); return {tools}"
    add_bad(plugins, lines)
    code, _, err = phi3("quantize", source, "-d", "bad", "--precision", "int4")
    assert code == 5
    assert "quantize of phi3-bad 1.0 returned " in err
    assert "among the tools, which are names and versions" in err


@pytest.mark.parametrize("dtype", ["I8", "U8", "I32", "BOOL"])
@pytest.mark.parametrize("name", ["model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.down_proj.qweight"])
def test_weights_that_are_integers_are_no_originals(phi3, source, dtype, name):
    size = {"I32": 4}.get(dtype, 1) * 4
    entry = {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, size]}
    header = json.dumps({name: entry}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(size)
    Path(source, "model.safetensors").write_bytes(content)
    code, _, err = phi3("quantize", source, "-d", "parrot", "--precision", "int4")
    assert code == 4
    assert f"tensor {name} is {dtype}, and original weights are floating-point numbers" in err
    assert Store().entries() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--precision", "fp16", "--ratio", "0.5"), "a ratio of 0.5 needs int4"),
        (("--precision", "fp16", "--asym"), "fp16 has no symmetry"),
        (("--precision", "fp16", "--calibration", "none"), "fp16 has no calibration"),
        (("--precision", "int4", "--calibration", "/nowhere.txt"), "nowhere.txt cannot be read: no such file"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_made(phi3, source, arguments, words):
    code, _, err = phi3("quantize", source, "-d", "parrot", *arguments)
    assert code == 2
    assert words in err
    assert Store().entries() == []


def test_what_is_no_original_is_refused(phi3, source, home):
    made = phi3(*quantizing(source))[1]
    code, _, err = phi3(*quantizing(made["path"], "--group-size", 64))
    assert code == 2
    assert "has no original weights to quantize" in err


def test_original_weights_with_our_manifest_and_another_readme_are_the_same_original(phi3, source, tmp_path):
    folder = tmp_path / "tiny"
    manifest = {"format": 1, "files": {}, "digest": "1", "model": "tiny"}
    (folder / "phi3.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert phi3(*quantizing(folder))[1]["how"] == "quantized from the original weights"
    (folder / "README.md").write_text("changed", encoding="utf-8")
    (folder / "out").mkdir()
    (tmp_path / "there").mkdir()
    again = phi3(*quantizing(tmp_path / "there" / ".." / "tiny"))[1]
    assert again["how"] == "already in the store"


def test_a_reference_that_is_not_there_is_said_first(phi3, source):
    code, _, err = phi3("eval", source, "-d", "parrot", "--precision", "int4", "--reference", "/nowhere")
    assert code == 4
    assert "there is no file or folder" in err
    assert "(--reference takes original weights, or a backend that phi3 plugins lists)" in err
    code, _, err = phi3("eval", source, "-d", "parrot", "--precision", "int4", "--reference", "torch")
    assert code == 4
    assert "unknown model 'torch' (--reference takes original weights, or a backend that phi3 plugins lists)" in err
    assert Store().entries() == []


def test_a_backend_can_be_the_reference(phi3, plugins, checkpoint):
    plugins.add("noisy", changes=INT4.replace("parrot", "noisy") + LOGITS.format(value="0"))
    plugins.add("exact", changes=EXACT.replace("{name}", "exact"))
    assert phi3("quantize", checkpoint, "-d", "noisy", "--precision", "int4", "--no-check")[0] == 0
    asked = ("eval", checkpoint, "-d", "noisy", "--precision", "int4")
    code, by_core, _ = phi3(*asked)
    assert code == 0
    code, report, err = phi3(*asked, "--reference", "exact")
    assert (code, report["device"]) == (0, "noisy:CPU")
    assert "fp16, quantized from the original weights, on exact:CPU" in err
    assert report == by_core
    code, report, _ = phi3("eval", checkpoint, "-d", "exact", "--reference", "exact")
    assert (code, report["kl_mean"], report["top1_agreement"]) == (0, 0, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("", "parrot:CPU: parrot (phi3-parrot 1.0) does not implement the hook logits"),
        (LOGITS.format(value="float('nan')"), "parrot:CPU: logits of phi3-parrot 1.0 returned nan"),
        (LOGITS.format(value="0").replace("600", "599"), "of [512, 599], and not of [512, 600]"),
    ],
)
def test_a_reference_that_fails_is_named(run_main, plugins, checkpoint, changes, words):
    plugins.add("exact", changes=EXACT.replace("{name}", "exact"))
    plugins.add("parrot", changes=changes)
    code, _, err = run_main("eval", checkpoint, "-d", "exact", "--reference", "parrot")
    assert code == 5
    assert words in err


def test_options_are_for_the_engine_that_is_judged(phi3, plugins, checkpoint):
    plugins.add("noisy", changes=INT4.replace("parrot", "noisy") + LOGITS.format(value="0"))
    plugins.add("exact", changes=EXACT.replace("{name}", "exact"))
    assert phi3("quantize", checkpoint, "-d", "noisy", "--precision", "int4", "--no-check")[0] == 0
    asked = ("eval", checkpoint, "--precision", "int4", "--option", "FOO=1")
    assert phi3(*asked, "-d", "noisy", "--reference", "exact")[0] == 0
    code, _, err = phi3("eval", checkpoint, "-d", "exact", "--option", "FOO=1", "--reference", "exact")
    assert code == 2
    assert "exact has no option FOO" in err


@pytest.fixture
def no_template(chatml_folder, tmp_path, monkeypatch):
    """Original weights of a model that was not tuned for chat; nothing is on stdin."""
    nothing = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr("sys.stdin", nothing)
    folder = tmp_path / "base"
    folder.mkdir()
    shutil.copyfile(chatml_folder / "tokenizer.json", folder / "tokenizer.json")
    (folder / "config.json").write_text('{"model_type": "phi3"}', encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"\0" * 8)
    return folder


def test_a_missing_template_is_said_before_the_work(plugins, run_main, no_template):
    plugins.add("parrot")
    asked = ("run", "Hello", "-m", no_template, "-d", "parrot")
    for _ in range(2):
        code, out, err = run_main(*asked)
        assert (code, out) == (4, "")
        assert f"phi3: {no_template} has no chat template" in err
        assert "feathers" not in err
        assert "staging" not in err
        # Quantizing needs none. What it made cannot answer either.
        assert run_main("quantize", no_template, "-d", "parrot", "-p", "fp16")[0] == 0
    (no_template / "chat_template.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
    assert run_main(*asked)[1].strip() == "Hello"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer_config.json", "[]"),
        ("special_tokens_map.json", "{"),
        ("chat_template.jinja", "{% if %}"),
        ("chat_template.jinja", "Hello"),
    ],
)
def test_damaged_text_files_are_said_before_the_work(plugins, run_main, no_template, name, content):
    plugins.add("parrot")
    (no_template / name).write_text(content, encoding="utf-8")
    code, _, err = run_main("run", "Hello", "-m", no_template, "-d", "parrot")
    assert code == 4
    assert "feathers" not in err
    assert (str(no_template / name) in err) == name.endswith("json")
    code, _, err = run_main("quantize", no_template, "-d", "parrot", "-p", "fp16")
    assert (code == 4) == name.endswith("json")


def test_tokens_beyond_the_embedding_are_said_before_the_work(plugins, run_main, no_template):
    plugins.add("parrot")
    config = {"model_type": "phi3", "vocab_size": 2}  # <|im_end|> is the third token
    (no_template / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (no_template / "chat_template.jinja").write_text("{{ messages[0].content }}<|im_end|>", encoding="utf-8")
    code, _, err = run_main("run", "Hello", "-m", no_template, "-d", "parrot")
    assert code == 4
    assert f"the tokenizer of {no_template} has the token '<|im_end|>' with the id 2" in err
    assert "feathers" not in err

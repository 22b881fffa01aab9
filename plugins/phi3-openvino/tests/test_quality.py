"""Quantizing the sample model as a user does, and how good what comes out is."""

from __future__ import annotations

import json

import phi3_core as phi3
import pytest
from quantizing_checks import command, copy_source_of_sample

# top-1 agreement at least, mean KL divergence at most
BOUNDS = {"fp16": (0.99, 0.002), "int8": (0.96, 0.01), "int4": (0.80, 0.17)}


@pytest.fixture(scope="module")
def home(sample_home, tmp_path_factory):
    """A store with the sample model's source alone, so that the other tests keep their artifacts."""
    home = tmp_path_factory.mktemp("quantized")
    copy_source_of_sample(sample_home, home)
    return home


@pytest.fixture
def run(home, monkeypatch, capfd):
    monkeypatch.setenv("PHI3_HOME", str(home))
    return command("openvino:CPU", capfd)


@pytest.mark.quality
@pytest.mark.parametrize("precision", BOUNDS)
def test_a_quantized_model_comes_with_its_measured_quality(run, home, precision):
    more = ("--group-size", "64") if precision == "int4" else ()
    code, made, _ = run("quantize", "sample", "--precision", precision, *more)
    assert code == 0
    quality, (agreement, divergence) = made["quality"], BOUNDS[precision]
    assert quality["top1_agreement"] >= agreement
    assert quality["kl_mean"] <= divergence
    assert quality["tokens"] > 400
    manifest = json.loads((home / "artifacts" / "sample" / f"openvino-{precision}" / "phi3.json").read_text())
    assert manifest["quality"] == quality
    assert manifest["recipe"]["precision"] == precision
    with phi3.load("sample", device="openvino:CPU", precision=precision, purpose="answer") as model:
        assert "Paris" in model.generate("What is the capital of France?").text


@pytest.mark.quality
def test_the_second_time_it_is_there(run):
    first = run("quantize", "sample", "--precision", "int8")[1]
    second = run("quantize", "sample", "--precision", "int8")[1]
    assert second["how"] == "already in the store"
    assert second["path"] == first["path"]


@pytest.mark.quality
def test_the_report_can_be_had_again_and_of_another_text(run, tmp_path):
    code, report, _ = run("eval", "sample", "--precision", "int8")
    assert code == 0
    assert report["top1_agreement"] >= 0.96
    text = tmp_path / "text.txt"
    text.write_text("The lighthouse stood on the last rock before the open sea. " * 4, encoding="utf-8")
    other = run("eval", "sample", "--precision", "int8", "--text", str(text))[1]
    assert other["tokens"] < report["tokens"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "int4", "--group-size", "100"], "100"),
        (["--precision", "int8", "--ratio", "0.5"], "ratio"),
        (["--precision", "int4", "--group-size", "0"], "group size"),
        ([], "--precision is required"),
        (["--precision", "int4", "--calibration", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_what_cannot_be_done_is_said_first(run, arguments, words):
    code, made, err = run("quantize", "sample", *arguments)
    assert (code, made) == (2, None)
    assert words in err

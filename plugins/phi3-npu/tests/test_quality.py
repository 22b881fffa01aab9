"""Quantizing the sample model as a user does, and how good what comes out is."""

from __future__ import annotations

import json

import phi3_core as phi3
import pytest
from quantizing_checks import command

# top-1 agreement at least, mean KL divergence at most, perplexity over that of the original at most
BOUNDS = {"fp16": (0.99, 1e-4, 1.001), "int8": (0.95, 0.01, 1.01), "int4": (0.70, 0.33, 1.4)}


@pytest.fixture
def run(sample_store, capfd):
    return command("npu:CPU", capfd)


@pytest.mark.quality
@pytest.mark.parametrize("precision", BOUNDS)
def test_a_quantized_model_comes_with_its_measured_quality(run, sample_store, precision):
    code, made, err = run("quantize", "sample", "--precision", precision)
    assert code == 0, err
    quality, (agreement, divergence, ratio) = made["quality"], BOUNDS[precision]
    assert quality["top1_agreement"] >= agreement
    assert quality["kl_mean"] <= divergence
    assert quality["perplexity"] <= ratio * quality["perplexity_reference"]
    assert quality["tokens"] > 400
    folder = sample_store / "artifacts" / "sample" / f"npu-{precision}"
    assert json.loads((folder / "phi3.json").read_text(encoding="utf-8"))["quality"] == quality
    with phi3.load("sample", device="npu:CPU", precision=precision, purpose="answer") as model:
        assert "Paris" in model.generate("What is the capital of France?", max_new_tokens=7).text


@pytest.mark.quality
def test_the_report_can_be_had_again_and_of_another_text(run, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The lighthouse stood on the last rock before the open sea. " * 2, encoding="utf-8")
    code, report, _ = run("eval", "sample", "--precision", "int8", "--text", str(text))
    assert code == 0
    assert report["top1_agreement"] >= 0.8
    assert report["tokens"] < 100


def test_eight_bits_are_preferred(sample_store):
    (offer,) = [offer for offer in phi3.survey().offers if str(offer.device) == "npu:CPU"]
    assert offer.precisions[0] == "int8"

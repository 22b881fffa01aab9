"""A GGUF file of the Phi-3 architecture with real weights, those of ``sample``, is asked on each backend."""

from __future__ import annotations

import importlib.util
import json

import gguf_files
import pytest
from phi3_core.checkpoint.gguf import Gguf
from phi3_core.models import sample_package


def has(module):
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"needs {module}")


@pytest.fixture(scope="module")
def tokenizer(sample_needed):
    """What the package's own file says about its tokenizer."""
    metadata = Gguf.open(sample_package.installed().file).metadata
    return {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}


@pytest.fixture
def write(sample_source, tokenizer, tmp_path):
    """Writes the weights of ``sample`` as a Phi-3 with matrices of one type."""

    def write(kind):
        metadata = gguf_files.metadata_of(sample_source) | tokenizer
        tensors = gguf_files.tensors_of(sample_source, kind=lambda name: "F16" if name == "token_embd" else kind)
        return gguf_files.write(tmp_path / f"sample-{kind}.gguf", "phi3", metadata, tensors)

    return write


@pytest.mark.parametrize("backend", [pytest.param("openvino"), pytest.param("dml", marks=has("onnxruntime_genai"))])
@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        ("Q4_0", "int4"),
        pytest.param("Q8_0", "int8", marks=pytest.mark.slow),
        pytest.param("F16", "fp16", marks=pytest.mark.slow),
    ],
)
def test_the_capital_of_france(phi3, home, write, backend, kind, precision):
    asked = ("-d", f"{backend}:CPU", "--json", "--temperature", "0", "What is the capital of France?")
    done = phi3("run", "-m", write(kind), *(() if kind != "F16" else ("-p", "fp16")), *asked)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["precision"], found["device"]) == (precision, f"{backend}:CPU")
    if kind == "F16":  # a model of this size says something else at the slightest rounding
        assert "Paris" in found["text"]
    (manifest,) = (home / "artifacts").glob("*/*/phi3.json")
    said = json.loads(manifest.read_text(encoding="utf-8"))
    assert said["source"].get("gguf_types") == (None if kind == "F16" else [kind])
    assert said["quality"]["kl_mean"] < 0.01, "beside what the file says: Q4_0 and Q8_0 are kept as they are"

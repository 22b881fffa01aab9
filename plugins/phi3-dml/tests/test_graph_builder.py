"""Our graph beside the one that onnxruntime-genai's builder makes of the same checkpoint, node by node and id by id.

Run with ``--run-slow`` where torch, transformers and onnx_ir are installed beside onnxruntime-genai.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.forward import logits
from phi3_core.quantization.scales import Scheme
from phi3_core.testing.checkpoints import TINY, write_random
from phi3_core.values import Artifact, Device, GenerationRequest
from phi3_dml import layouts

onnx = pytest.importorskip("onnx", reason="needs onnx to read graphs")
for needed in ("torch", "transformers", "onnx_ir"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed} to run the builder", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.runs]
# The builder as its users run it, without the tokenizer, which random weights have none of.
BUILD = """
import sys
from onnxruntime_genai.models import builder
from onnxruntime_genai.models.builders import base
base.Model.save_processing = lambda *given, **more: None
source, output, precision, provider = sys.argv[1:]
builder.create_model("", source, output, precision, provider, output + "-cache", hf_remote=False)
"""
CASES = [("dml", "int4"), ("dml", "fp16"), ("cpu", "int4"), ("cpu", "fp32")]
# Real proportions: heads that the CPU's attention can turn by itself.
LARGER = {"hidden_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    return {name: write_random(folder / name, {**TINY[name], **LARGER}) for name in TINY}


def build(source, folder, precision, provider):
    command = [sys.executable, "-W", "ignore", "-c", BUILD, str(source), str(folder), precision, provider]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not (folder / "genai_config.json").is_file():
        # The builder ends with the tokenizer, whose absence it does not forgive in some versions.
        raise AssertionError(done.stderr)
    return folder


def ours(write_graph, source, provider, precision):
    checkpoint = Checkpoint.open(source)
    layout = layouts.CPU if provider == "cpu" else layouts.DIRECTML
    scheme = Scheme(bits=4, group_size=32)
    weights = (*checkpoint.linear, checkpoint.head)
    schemes = {weight.name: scheme for weight in weights} if precision == "int4" else {}
    return checkpoint, write_graph(checkpoint, layout, name="ours", schemes=schemes)


def shape_of(folder):
    """Every node that does some of the arithmetic: its type, attributes, and what kinds of things go in."""
    model = onnx.load(folder / "model.onnx", load_external_data=False).graph
    dims = {tensor.name: (tensor.data_type, *tensor.dims) for tensor in model.initializer}
    for node in model.node:  # halves in the file, singles in the arithmetic
        if node.op_type == "Cast" and node.input[0] in dims:
            dims[node.output[0]] = (onnx.TensorProto.FLOAT, *dims[node.input[0]][1:])
    rows = []
    for node in model.node:
        if node.op_type in {"Constant", "Identity", "If", "Transpose", "Cast", "Shape", "Gather"}:
            continue
        given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        # Written out by one of the two, and the default: nothing.
        plain = {"softcap": 0, "rotary_interleaved": 0, "interleaved": 0, "accuracy_level": 0}
        given = {key: value for key, value in given.items() if plain.get(key) != value}
        tensors = [dims[name] for name in node.input if name in dims and not name.startswith(("cos", "sin"))]
        rows.append((node.op_type, node.domain, sorted(given.items()), tensors[:2], len([n for n in node.output if n])))
    return sorted(rows, key=repr)


@pytest.mark.parametrize(("provider", "precision"), CASES)
@pytest.mark.parametrize("name", TINY)
def test_node_by_node(sources, write_graph, tmp_path, name, provider, precision):
    """The same operators and attributes on tensors of the same shapes; only DirectML's zero points are more."""
    theirs = build(sources[name], tmp_path / "theirs", precision, provider)
    _, mine = ours(write_graph, sources[name], provider, precision)
    found, expected = shape_of(mine), shape_of(theirs)
    assert found == expected


@pytest.mark.parametrize("precision", ["int4", "fp32"])
@pytest.mark.parametrize("name", TINY)
def test_id_by_id(sources, write_graph, tmp_path, name, precision):
    from phi3_dml import engine

    theirs = build(sources[name], tmp_path / "theirs", precision, "cpu")
    (theirs / "config.json").write_bytes((sources[name] / "config.json").read_bytes())
    checkpoint, mine = ours(write_graph, sources[name], "cpu", precision)
    device = Device(backend="dml", id="CPU", kind="cpu", name="CPU")
    ids = [int(token) for token in np.random.default_rng(1).integers(3, 320, 30)]
    found = []
    for folder in (mine, theirs):
        loaded = engine.load(Artifact(path=Path(folder), backend="dml", precision="int4"), device, {}, "answer")
        answer = list(loaded.generate(GenerationRequest(prompt_ids=ids, max_new_tokens=12)))
        found.append((answer, loaded.logits(ids)))
    if precision == "fp32":
        assert found[0][0] == found[1][0]
        assert np.abs(found[0][1] - found[1][1]).max() < 1e-4
    else:  # the roundings differ: ours searches for its scales
        exact = logits(checkpoint, ids)
        errors = [np.std(rows - exact) for _, rows in found]
        assert errors[0] < 1.05 * errors[1] < np.std(exact)

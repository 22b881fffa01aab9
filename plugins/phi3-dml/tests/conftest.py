"""Checkpoints of every shape, graphs made of them, and the sample model, obtained once for all tests."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import phi3_core as phi3
import pytest
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.quantization.bit_allocation import RoundingPlan
from phi3_core.testing.checkpoints import TINY, write_random
from phi3_dml import configuration, flavours

RUNS = flavours.installed().flavour is not None


def pytest_collection_modifyitems(items):
    """Without a flavour of ONNX Runtime GenAI there is nothing to run; what only reads is tested all the same."""
    if not RUNS:
        skip = pytest.mark.skip(reason='needs ONNX Runtime GenAI: pip install "phi3-dml[cpu]"')
        for item in items:
            if item.get_closest_marker("runs"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """One of every shape of the family. Not to be changed."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {name: Checkpoint.open(write_random(folder / name, TINY[name])) for name in TINY}


@pytest.fixture
def write_graph(tmp_path):
    """Write a checkpoint's graph into a folder that onnxruntime-genai loads."""
    from phi3_dml import graph, graph_weights, layouts
    from phi3_dml.onnx import writer

    def write(checkpoint, layout, *, name="graph", **plan):
        folder = tmp_path / name
        folder.mkdir()
        with graph_weights.DataFile(folder / configuration.DATA) as data:
            weights = graph_weights.StoredWeights(
                RoundingPlan(**plan), data, float16=layout.float16, explicit_zeros=layout.explicit_zeros
            )
            built = graph.build(checkpoint, weights, layout)
        (folder / configuration.MODEL).write_bytes(writer.write_model(built, "phi3-dml", "0"))
        configuration.write(checkpoint, folder, positions=not layouts.is_fused(checkpoint.architecture, layout))
        (folder / "config.json").write_bytes((checkpoint.path / "config.json").read_bytes())
        return folder

    return write


@pytest.fixture(scope="session")
def backend_name():
    """Whose artifacts the sample's store keeps."""
    return "dml"


@pytest.fixture(scope="module")
def model(sample_home):
    """The sample model, loaded for a conversation. Rounded to 8 bits it may miss its answers: some are close calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3_HOME", str(sample_home))
        with phi3.load("sample", device="dml:CPU", precision="fp16") as loaded:
            yield loaded


@pytest.fixture(scope="session")
def windows_wheel(tmp_path_factory):
    """Download a distribution's wheel for Windows, once. Skips where the index cannot be reached, and only there."""
    found = {}

    def download(requirement, *, platform="win_amd64", python="3.12"):
        key = requirement, platform, python
        if key not in found:
            folder = tmp_path_factory.mktemp("wheel")
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            command += ["--platform", platform, "--python-version", python, "--dest", str(folder), requirement]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode and "Retrying" in done.stderr:
                pytest.skip(f"the index does not answer: {done.stderr.strip().splitlines()[-1]}")
            assert done.returncode == 0, done.stderr
            (found[key],) = folder.glob("*.whl")
        return found[key]

    return download


@pytest.fixture(scope="session")
def attributes():
    """Return the attributes that modules of the plugin name, of objects with one of the names."""

    def attributes(owners, modules):
        found = set()
        for module in modules:
            source = Path(configuration.__file__).with_name(module).read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Attribute):
                    owner = node.value
                    name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
                    if name in owners:
                        found.add(node.attr)
        return found

    return attributes


@pytest.fixture(scope="session")
def runtime_attributes(attributes):
    """Those of onnxruntime-genai, and of what the plugin makes with it."""
    modules = ("engine.py", "forward.py", "runtime_probe.py", "search.py")
    return attributes({"og", "generator", "settings", "config", "_generator"}, modules)


@pytest.fixture
def ids():
    """64 ids of a tiny checkpoint's vocabulary."""
    return [int(token) for token in np.random.default_rng(1).integers(3, 320, 64)]

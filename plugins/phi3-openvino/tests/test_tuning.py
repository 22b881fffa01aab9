"""Settings that are measured: the groups in which activations are rounded on a CPU."""

from __future__ import annotations

import json

import openvino as ov
import pytest
from phi3_core.values import Artifact, Device
from phi3_openvino import tuning

RUNTIME = "2026.4"
PLAIN = {"INFERENCE_PRECISION_HINT": "f32"}
CPU = Device(backend="openvino", id="CPU", kind="cpu", name="A processor")


@pytest.fixture
def graph(tmp_path):
    def write(mode, size):
        file = tmp_path / "openvino_model.xml"
        info = f'<mode value="{mode}" /><group_size value="{size}" />'
        file.write_text(f"<net><layers>{' ' * 100_000}</layers><rt_info>{info}</rt_info></net>", encoding="utf-8")
        return file

    return write


def artifact(tmp_path, digest="1" * 64):
    return Artifact(path=tmp_path, backend="openvino", precision="int4", manifest={"digest": digest})


@pytest.mark.parametrize(
    ("mode", "size", "found"),
    [
        ("int4_sym", 128, (True, 128)),
        ("int4_sym", -1, (True, -1)),
        ("int4_asym", 64, (False, 64)),
        ("int8_sym", -1, None),
        ("int8_asym", -1, None),
        ("nf4", 128, None),
        ("e2m1", 32, None),
    ],
)
def test_the_ir_tells_the_form_of_its_weights(graph, mode, size, found):
    assert tuning.form_of_weights(graph(mode, size)) == found


@pytest.mark.parametrize("form", [(True, 128), (True, -1), (False, 128), (False, -1)])
def test_the_layers_hold_the_weights_in_their_form(form):
    """Else the time of float16 weights would be measured."""
    layers = tuning._layers(tuning.Form(*form), 2)
    compiled = ov.Core().compile_model(layers, "CPU", {**PLAIN, tuning.GROUP: "64"})
    found = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    linear = [info for info in found if str(info["layerType"].astype(str)) == "FullyConnected"]
    assert [info["runtimePrecision"].astype(str) for info in linear] == ["i4" if form[0] else "u4"] * 2


@pytest.mark.parametrize("candidates", [[32, 64], [32, 64, 128]])
def test_the_weights_that_are_read_in_turns_exceed_the_caches(monkeypatch, candidates):
    asked = []

    def layers(form, count):
        asked.append(count)
        return made(form, count)

    made = tuning._layers
    monkeypatch.setattr(tuning, "_layers", layers)
    tuning.measure(tuning.Form(symmetric=True, size=64), candidates, PLAIN)
    (count,) = asked
    assert len(candidates) * count * 3072 * 4096 / 2 >= 36 << 20


def test_an_ir_that_tells_nothing_keeps_the_default(tmp_path, home):
    file = tmp_path / "openvino_model.xml"
    file.write_text("<net/>", encoding="utf-8")
    assert tuning.tuned(artifact(tmp_path), CPU, file, RUNTIME, PLAIN) is None
    assert tuning.tuned(artifact(tmp_path), CPU, tmp_path / "missing.xml", RUNTIME, PLAIN) is None


def test_groups_of_32_leave_no_choice(graph, tmp_path, home, monkeypatch):
    monkeypatch.setattr(tuning, "measure", None)
    assert tuning.tuned(artifact(tmp_path), CPU, graph("int4_sym", 32), RUNTIME, PLAIN) is None


def test_the_fastest_is_taken_and_remembered(graph, tmp_path, home, monkeypatch):
    times = tuning.measure(tuning.Form(symmetric=True, size=128), [32, 64, 128], PLAIN)
    assert set(times) == {32, 64, 128}
    assert all(0 < seconds < 5 for seconds in times.values())
    first = tuning.tuned(artifact(tmp_path), CPU, graph("int4_sym", 128), RUNTIME, PLAIN)
    assert first in {None, "64", "128"}
    (file,) = home.rglob("tuning.json")
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert kept["fastest"] == int(first or 32)
    assert set(kept["seconds"]) == {"32", "64", "128"}
    assert min(kept["seconds"], key=kept["seconds"].get) == str(kept["fastest"])
    assert [path.name for path in file.parent.iterdir()] == ["tuning.json"]
    monkeypatch.setattr(tuning, "measure", None)
    assert tuning.tuned(artifact(tmp_path), CPU, graph("int4_sym", 128), RUNTIME, PLAIN) == first


def test_another_processor_or_runtime_is_measured_anew(graph, tmp_path, home, monkeypatch):
    asked = []

    def measure(form, candidates, properties):
        asked.append(form)
        return {each: 1.0 / each for each in candidates}

    monkeypatch.setattr(tuning, "measure", measure)
    other = Device(backend="openvino", id="CPU", kind="cpu", name="Another processor")
    for device, runtime in ((CPU, RUNTIME), (other, RUNTIME), (CPU, "2027.0"), (CPU, RUNTIME)):
        assert tuning.tuned(artifact(tmp_path), device, graph("int4_sym", -1), runtime, PLAIN) == "128"
    assert len(asked) == 3


@pytest.mark.parametrize("damage", ["", "{", '{"fastest": 7}', '{"fastest": [1]}', "[]"])
def test_a_damaged_memory_is_replaced(graph, tmp_path, home, damage):
    tuning.tuned(artifact(tmp_path), CPU, graph("int4_sym", 64), RUNTIME, PLAIN)
    (file,) = home.rglob("tuning.json")
    file.write_text(damage, encoding="utf-8")
    tuning.tuned(artifact(tmp_path), CPU, graph("int4_sym", 64), RUNTIME, PLAIN)
    assert json.loads(file.read_text(encoding="utf-8"))["fastest"] in {32, 64}

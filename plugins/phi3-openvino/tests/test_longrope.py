"""Models with two sets of rotary factors, below and beyond the context where the second one begins."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from attrs import evolve
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.forward import logits
from phi3_core.errors import BackendError
from phi3_core.quantization.bit_allocation import RoundingPlan
from phi3_core.testing.checkpoints import TINY, write_random
from phi3_core.values import Artifact, Device, GenerationRequest, Sampling
from phi3_openvino import engine, graph, longrope, opening, weights

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
CPU = Device(backend="openvino", id="CPU", kind="cpu", name="x")
ORIGINAL = 270
"""More than the 256 tokens that the paged backend reads at a time."""
IDS = [int(token) for token in np.random.default_rng(1).integers(3, 320, 600)]
LIMITS = {"max_position_embeddings": 1024, "original_max_position_embeddings": ORIGINAL}


@pytest.fixture(scope="module", params=["phi-3-mini-128k", "phi-4-mini"])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / request.param
    return Checkpoint.open(write_random(folder, {**TINY[request.param], **LIMITS}))


@pytest.fixture(scope="module")
def artifact(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact")
    graph.write(checkpoint, RoundingPlan(), folder / weights.IR)
    (folder / "config.json").write_bytes((checkpoint.path / "config.json").read_bytes())
    digest = checkpoint.path.name
    return Artifact(path=folder, backend="openvino", precision="fp16", manifest={"digest": digest, "recipe": {}})


@pytest.fixture(scope="module")
def earlier(artifact, tmp_path_factory):
    """The artifact as earlier versions wrote it: the condition reversed, the long factors first."""
    folder = tmp_path_factory.mktemp("earlier")
    for file in artifact.path.iterdir():
        shutil.copyfile(file, folder / file.name)
    tree = ET.parse(folder / weights.IR)
    layers = {layer.get("id"): layer for layer in tree.iterfind("layers/layer")}
    (choice,) = (key for key, layer in layers.items() if layer.get("name") == longrope.CHOICE)
    edges = {edge.get("to-port"): edge for edge in tree.iterfind("edges/edge") if edge.get("to-layer") == choice}
    edges["1"].set("to-port", "2")
    edges["2"].set("to-port", "1")
    condition = layers[edges["0"].get("from-layer")]
    assert condition.get("type") == "LessEqual"
    condition.set("type", "Greater")
    tree.write(folder / weights.IR)
    return evolve(artifact, path=folder)


def asked(tokens, new, **sampling):
    return GenerationRequest(
        prompt_ids=tuple(IDS[:tokens]), max_new_tokens=new, sampling=Sampling(**sampling), stop_ids=()
    )


def expected(checkpoint, tokens, new):
    ids = IDS[:tokens]
    for _ in range(new):
        ids.append(int(logits(checkpoint, ids)[-1].argmax()))
    return ids[tokens:]


@pytest.mark.parametrize("purpose", ["conversation", "answer"])
def test_below_across_and_beyond_it_is_the_reference(checkpoint, artifact, home, purpose, caplog):
    loaded = engine.load(artifact, CPU, EXACT, purpose)
    assert loaded.context_length == 1024
    for tokens, new in ((20, 4), (ORIGINAL - 4, 10), (ORIGINAL, 2), (600, 6), (ORIGINAL - 1, 1), (300, 3)):
        assert list(loaded.generate(asked(tokens, new))) == expected(checkpoint, tokens, new), tokens
    # Loaded anew for: across, shorter, across, shorter, beyond.
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        f"{length} tokens of text" for length in (ORIGINAL + 1, ORIGINAL, ORIGINAL + 1, ORIGINAL - 1, 300)
    ]
    loaded.close()


def test_an_artifact_of_an_earlier_version_is_right_below_and_beyond(checkpoint, earlier, home):
    loaded = engine.load(earlier, CPU, EXACT, "answer")
    assert loaded.context_length == 1024
    for tokens, new in ((20, 4), (ORIGINAL - 3, 8), (400, 4)):
        assert list(loaded.generate(asked(tokens, new))) == expected(checkpoint, tokens, new), tokens


def test_an_answer_that_ends_before_does_not_go_on(checkpoint, artifact, home):
    (first, *_) = expected(checkpoint, ORIGINAL - 3, 1)
    loaded = engine.load(artifact, CPU, EXACT, "answer")
    request = GenerationRequest(
        prompt_ids=tuple(IDS[: ORIGINAL - 3]), max_new_tokens=50, sampling=Sampling(), stop_ids=(first,)
    )
    assert list(loaded.generate(request)) == []


def test_a_seed_tells_the_same_across(artifact, home):
    loaded = engine.load(artifact, CPU, EXACT, "answer")
    first, again, other = (
        list(loaded.generate(asked(ORIGINAL - 5, 12, temperature=1.0, seed=seed))) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len(first) == 12


def test_where_nothing_can_be_kept_it_stays_below(checkpoint, artifact, home):
    (home / "engines").parent.mkdir(parents=True, exist_ok=True)
    (home / "engines").write_text("a file, where a folder would be written", encoding="utf-8")
    loaded = engine.load(artifact, CPU, EXACT, "conversation")
    with pytest.raises(BackendError, match=f"beyond {ORIGINAL} tokens this model needs a store that can be written"):
        list(loaded.generate(asked(300, 1)))
    assert list(loaded.generate(asked(20, 2))) == expected(checkpoint, 20, 2)


def can_symlink(folder):
    try:
        (folder / "link").symlink_to(folder)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("lacking", [(), ("hardlink_to",), ("hardlink_to", "symlink_to")])
def test_the_constants_are_shared_as_far_as_the_system_can(artifact, tmp_path, monkeypatch, lacking):
    def refuse(*_):
        raise OSError

    symlinks = can_symlink(tmp_path)  # on Windows only some users can
    for name in lacking:
        monkeypatch.setattr(Path, name, refuse)
    constants = Path(weights.IR).with_suffix(".bin").name
    longrope.make_long(artifact.path / weights.IR, tmp_path)
    assert (tmp_path / constants).read_bytes() == (artifact.path / constants).read_bytes()
    linked = len(lacking) < (2 if symlinks else 1)
    assert (tmp_path / constants).is_symlink() == (linked and lacking == ("hardlink_to",))
    assert (tmp_path / constants).samefile(artifact.path / constants) == linked
    longrope.make_long(artifact.path / weights.IR, tmp_path)


def test_several_processes_may_need_it_at_once(artifact, tmp_path):
    start = threading.Barrier(4)
    failed = []

    def make():
        start.wait()
        try:
            longrope.make_long(artifact.path / weights.IR, tmp_path)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "openvino_model.bin",
        "openvino_model.xml",
    ]
    assert (tmp_path / "openvino_model.bin").read_bytes() == (artifact.path / "openvino_model.bin").read_bytes()


@pytest.mark.parametrize("manifest", [{"recipe": {"precision": "int4"}}, {}], ids=["the other exporter", "published"])
def test_other_graphs_stop_where_they_go_wrong(tmp_path, caplog, manifest):
    sizes = {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096}
    config = {**sizes, "rope_scaling": {"type": "longrope"}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / weights.IR).write_text("<net/>", encoding="utf-8")
    artifact = Artifact(path=tmp_path, backend="openvino", precision="int4", manifest=manifest)
    assert opening.check(artifact, CPU, {}, "answer").context == 4096
    assert "limited to 4096 tokens" in caplog.text

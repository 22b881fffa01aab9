"""From a recipe to a plan: what is refused, what gets 8 bits, and whether there is room for it."""

from __future__ import annotations

import json
import shutil

import psutil
import pytest
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.errors import DiskFullError, ModelError, UsageError
from phi3_core.quantization import recipes, resources
from phi3_core.quantization.bit_allocation import RoundingPlan, stored_counter
from phi3_core.quantization.scales import Scheme
from phi3_core.testing.checkpoints import TINY, write_random
from phi3_core.values import Recipe, Source

BYTE, NIBBLE = Scheme(bits=8), Scheme(bits=4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return Checkpoint.open(write_random(tmp_path_factory.mktemp("tiny"), TINY["phi-4-mini"]))


def quiet(*_, **__):
    pass


def plan(checkpoint, linear, ratio=1.0):
    chosen = recipes.RoundingSettings(linear=linear, ratio=ratio, calibration="none")
    return chosen.plan(checkpoint, outer=(checkpoint.head,), int8_scheme=lambda _: BYTE, progress=quiet)


def test_without_a_scheme_everything_keeps_half_precision(checkpoint):
    assert plan(checkpoint, None) == RoundingPlan()


def test_what_lies_around_the_layers_gets_eight_bits_and_so_do_layers_beyond_the_ratio(checkpoint):
    linear = {weight.name: weight.raw.size for weight in checkpoint.linear}
    whole = plan(checkpoint, NIBBLE).schemes
    assert whole == {**dict.fromkeys(linear, NIBBLE), checkpoint.head.name: BYTE}
    mixed = plan(checkpoint, NIBBLE, ratio=0.5).schemes
    low = sum(size for name, size in linear.items() if mixed[name] is NIBBLE)
    assert 0 < low <= 0.5 * sum(linear.values())
    assert mixed[checkpoint.head.name] is BYTE


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"precision": "int8", "ratio": 0.5}, "a ratio of 0.5 needs int4"),
        ({"precision": "fp16", "group_size": 32}, "fp16 has no groups of 32"),
        ({"precision": "int4", "extra": {"awq": "yes", "abc": ""}}, "acme knows no quantization setting abc, awq"),
        ({"precision": "int4", "extra": {"exporter": "mine"}}, "acme knows no exporter 'mine'"),
    ],
)
def test_what_does_not_go_together_is_refused(recipe, message):
    with pytest.raises(UsageError, match=message):
        recipes.check_extra("acme", Recipe(**recipe))
        recipes.check_recipe(Recipe(**recipe), grouped=("int4", "int8"))


def test_what_does_go_together_is_taken():
    for recipe in (
        Recipe(precision="int4", ratio=0.5, group_size=32, extra={"calibration": "none", "exporter": "reference"}),
        Recipe(precision="int8", group_size=32),
        Recipe(precision="fp16", group_size=-1),
    ):
        recipes.check_extra("acme", recipe)
        recipes.check_recipe(recipe, grouped=("int4", "int8"))
        assert recipes.wants_reference(recipe) == ("exporter" in recipe.extra)


def test_the_first_size_that_divides_all_inputs(checkpoint):
    widths = {weight.shape[1] for weight in checkpoint.linear}
    assert recipes.fitting_group_size(checkpoint.linear, (max(widths) * 2, 16, 8)) == 16
    assert recipes.fitting_group_size(checkpoint.linear, (7,)) is None


def test_the_count_of_what_is_stored_ends_at_the_whole(checkpoint):
    seen = []
    stored = stored_counter(checkpoint, RoundingPlan(), lambda *given: seen.append(given))
    for weight in (*checkpoint.linear, checkpoint.embedding, checkpoint.head):  # the last two are one
        stored(weight)
    assert seen[-1] == ("preparing weights", checkpoint.parameters, checkpoint.parameters)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    rounding = plan(checkpoint, NIBBLE)
    stored_counter(checkpoint, rounding, lambda stage, *_: seen.append(stage))(checkpoint.head)
    assert seen[-1] == "rounding weights"


@pytest.mark.parametrize(("ratio", "size"), [(1, 1000), (0.8, 1200), (0, 2000)])
def test_layers_beyond_the_ratio_count_twice(ratio, size):
    settings = recipes.RoundingSettings(linear=NIBBLE, ratio=ratio, calibration=None)
    assert settings.size_with_ratio(1000) == size


def test_room_on_the_disk(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3_000_000_000))
    resources.check_resources(tmp_path, size=3_000_000_000, memory=0)
    with pytest.raises(DiskFullError, match=r"model needs 3\.0 GB, and only 3\.0 GB are free in .* \(free some space"):
        resources.check_resources(tmp_path, size=2_000_000_000, memory=0, margin=1_000_000_001)


def test_room_in_memory(tmp_path, monkeypatch):
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=2_000_000_000))
    resources.check_resources(tmp_path, size=0, memory=2_000_000_000)
    with pytest.raises(ModelError, match=r"takes about 2\.5 GB of memory; 2\.0 GB are available"):
        resources.check_resources(tmp_path, size=0, memory=2_500_000_000)


def test_room_for_a_reference_exporter(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(bytes(1_000_000))
    (tmp_path / "notes.txt").write_bytes(bytes(9_000_000))
    source, usage, memory = Source(path=tmp_path, model="tiny"), shutil.disk_usage(tmp_path), psutil.virtual_memory()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2_000_000))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=(1 << 30) + 1_500_000))
    resources.check_resources_for_reference(source, tmp_path, disk=2, memory=1.5)
    with pytest.raises(DiskFullError, match=r"the reference exporter needs 2\.1 MB, and only 2\.0 MB are free"):
        resources.check_resources_for_reference(source, tmp_path, disk=2.1, memory=1.5)
    with pytest.raises(ModelError, match=r"the reference exporter takes about 1\.1 GB of memory; 1\.1 GB are"):
        resources.check_resources_for_reference(source, tmp_path, disk=2, memory=1.6)


def test_a_reference_exporter_gets_no_weights_that_it_passes_over(tmp_path):
    """An output layer that config.json denies, a further layer, and what core leaves to the exporter."""
    folder = write_random(tmp_path / "tied", {**TINY["phi-4-mini"], "tie_word_embeddings": False})
    source = Source(path=folder, model="tiny")
    resources.check_resources_for_reference(source, tmp_path, disk=0, memory=0)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"lm_head\.weight, which the reference exporter would pass over"):
        resources.check_resources_for_reference(source, tmp_path, disk=0, memory=0)
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}), encoding="utf-8")
    with pytest.raises(ModelError, match="tensors of 2 layers, but config.json says 1"):
        resources.check_resources_for_reference(source, tmp_path, disk=0, memory=0)
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "gelu"}), encoding="utf-8")
    resources.check_resources_for_reference(source, tmp_path, disk=0, memory=0)

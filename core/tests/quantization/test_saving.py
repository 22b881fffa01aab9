"""Weights that are saved as they are: what transformers would read is what the checkpoint has."""

from __future__ import annotations

import json

import gguf_files
import numpy as np
import pytest
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.contents import SINGLE
from phi3_core.checkpoint.forward import logits
from phi3_core.checkpoint.safetensors import map_file
from phi3_core.errors import ModelError
from phi3_core.quantization.saving import save_weights
from phi3_core.store.sidecars import copy_sidecars
from phi3_core.testing.checkpoints import TINY, write_random
from phi3_core.values import no_progress


def saved(source, output):
    """The checkpoint that is left when core has added the rest."""
    output.mkdir()
    save_weights(Checkpoint.open(source), output, no_progress)
    copy_sidecars(source, output)
    return Checkpoint.open(output)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_the_weights_stay_as_they_are(tmp_path, name, dtype):
    source = write_random(tmp_path / "source", TINY[name], dtype=dtype)
    found, original = saved(source, tmp_path / "output"), Checkpoint.open(source)
    assert {weight.dtype for weight in found.linear} == {"BF16" if dtype == "BF16" else "F16"}
    assert found.architecture.tied == original.architecture.tied
    ids = list(range(1, 40))
    if dtype == "F32":
        np.testing.assert_allclose(logits(found, ids), logits(original, ids), atol=0.1)
    else:
        np.testing.assert_array_equal(logits(found, ids), logits(original, ids))


def test_a_gguf_file_is_saved_as_float16(tmp_path):
    source = write_random(tmp_path / "source", TINY["phi-4"], dtype="F16")
    file = gguf_files.convert(source, tmp_path / "model.gguf")
    folder = gguf_files.linked(file, tmp_path / "linked")
    ids = list(range(1, 40))
    found = saved(folder, tmp_path / "output")
    np.testing.assert_allclose(logits(found, ids), logits(Checkpoint.open(source), ids), atol=1e-3)


def test_an_output_layer_beside_tied_embeddings_is_kept_and_said(tmp_path):
    source = write_random(tmp_path / "source", TINY["phi-4"])
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (source / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}), encoding="utf-8")
    found = saved(source, tmp_path / "output")
    assert "lm_head.weight" in map_file(found.path / SINGLE)
    assert json.loads((found.path / "config.json").read_text(encoding="utf-8")) == {
        **config,
        "tie_word_embeddings": False,
    }


def test_progress_is_told_and_damage_is_found(tmp_path):
    source = write_random(tmp_path / "source", {})
    told = []
    save_weights(Checkpoint.open(source), tmp_path, lambda *given: told.append(given))
    assert [stage for stage, _, _ in told] == ["writing weights"] * len(told)
    assert told[-1][1] == told[-1][2]
    weights = np.memmap(source / SINGLE, np.uint8, "r+")
    weights[-2:] = [0x00, 0x7C]  # infinity
    weights.flush()
    with pytest.raises(ModelError, match="not finite"):
        save_weights(Checkpoint.open(source), tmp_path, no_progress)

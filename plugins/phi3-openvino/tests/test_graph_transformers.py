"""Our graph, and core's reference, against transformers in float32, for every shape of the family."""

from __future__ import annotations

import numpy as np
import openvino as ov
import pytest
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.forward import logits
from phi3_core.quantization.bit_allocation import RoundingPlan
from phi3_core.testing.checkpoints import TINY, write_random
from phi3_openvino import graph

torch = pytest.importorskip("torch", reason="needs torch to run transformers' Phi-3")
transformers = pytest.importorskip("transformers", reason="needs transformers to compare with")

pytestmark = pytest.mark.slow

REAL = {
    "window of 2047": {"num_hidden_layers": 1, "max_position_embeddings": 4096, "sliding_window": 2047},
    "longrope from 4096 on": {
        **TINY["phi-4-mini"],
        "num_hidden_layers": 1,
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096,
    },
    "no window": {**TINY["phi-4"], "num_hidden_layers": 1, "max_position_embeddings": 16384},
}
CASES = [(name, config, tokens) for name, config in TINY.items() for tokens in (5, 24, 25, 64)]
CASES += [("window of 2047", REAL["window of 2047"], 2300), ("window of 2047", REAL["window of 2047"], 4096)]
CASES += [("longrope from 4096 on", REAL["longrope from 4096 on"], tokens) for tokens in (4096, 4097, 5000)]
CASES += [("no window", REAL["no window"], 5000)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "config", "tokens"), CASES, ids=[f"{case[0]}, {case[2]} tokens" for case in CASES])
def test_it_is_transformers(tmp_path, name, config, tokens):
    folder = write_random(tmp_path / "model", config)
    checkpoint = Checkpoint.open(folder)
    ids = np.random.default_rng(1).integers(3, 320, tokens)
    theirs = transformers.Phi3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)[None]).logits[0].numpy()
    span = np.ptp(expected)
    assert np.abs(logits(checkpoint, ids) - expected).max() <= 1e-4 * span
    graph.write(checkpoint, RoundingPlan(), tmp_path / "ours.xml")
    # As the plugin does; on some processors OpenVINO computes in bfloat16 otherwise.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(tmp_path / "ours.xml", "CPU", exact)
    found = compiled.create_infer_request().infer(
        {
            "input_ids": ids[None],
            "attention_mask": np.ones((1, tokens), np.int64),
            "position_ids": np.arange(tokens)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
    )["logits"][0]
    assert np.abs(found - expected).max() <= 1e-2 * span

"""Tiny checkpoints of every shape of the family, with tied and untied embeddings, against core's reference."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from phi3_core.testing.checkpoints import TINY

# top-1 agreement at least, mean KL divergence at most
BOUNDS = {"int8": (0.9, 2e-3)}
TIED = {name: config.get("tie_word_embeddings", False) for name, config in TINY.items()}
# The embeddings as the models have them are in ``test_contract.py``.
CASES = [(name, not TIED[name], "int8") for name in TINY]


@pytest.fixture(scope="module")
def results(library, tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("run_families.py"), folder],
        env={**os.environ, "PHI3_HOME": str(folder / "home")},
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {(each["name"], each["tied"], each["precision"]): each for each in found}


@pytest.mark.parametrize(("name", "tied", "precision"), CASES)
def test_every_shape_answers_like_the_original(results, name, tied, precision):
    agreement, divergence = BOUNDS[precision]
    result = results[name, tied, precision]
    assert result["top1"] >= agreement
    assert result["kl"] <= divergence


def test_longrope_stops_at_its_original_context(results):
    lengths = {name: results[name, not TIED[name], "int8"]["context"] for name in TINY}
    assert lengths == {
        "phi-3-mini-4k": 96,
        "phi-3-mini-128k": 24,
        "phi-3-medium": 96,
        "phi-4": 96,
        "phi-4-mini": 24,
    }


def test_an_output_layer_that_is_too_wide_is_cut_and_not_left_out(results):
    cut, whole = results["cut", True, "int8"], results["phi-4-mini", True, "int8"]
    assert cut["kl"] == pytest.approx(whole["kl"], rel=0.05)
    assert cut["fresh"] == whole["fresh"]

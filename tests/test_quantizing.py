"""``phi3 quantize`` as its users meet it: killed midway, run twice, and given damaged weights."""

from __future__ import annotations

import json
import subprocess
import time

import psutil
import pytest
from phi3_core.testing.checkpoints import TINY, write_random
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

WANTED = ("--device", "openvino:CPU", "--precision", "int4", "--no-check")


@pytest.fixture
def make_source(home, tmp_path):
    """Makes checkpoints with random weights, and a tokenizer that knows letters only."""

    def make(**config):
        folder = write_random(tmp_path / "source", {**TINY["phi-3-mini-4k"], "intermediate_size": 256, **config})
        letters = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
        tokenizer = Tokenizer(models.BPE(letters, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.save(str(folder / "tokenizer.json"))
        return folder

    return make


def artifacts(home):
    return sorted(path for path in (home / "artifacts").glob("*/*") if path.is_dir())


def test_killed_midway_nothing_is_visible_and_the_next_run_succeeds(command, phi3, make_source, home):
    source = make_source(hidden_size=512, intermediate_size=2048, num_hidden_layers=6)
    with subprocess.Popen(
        [command, "quantize", source, *WANTED], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 120
        while not list((home / "staging").rglob("openvino_model.bin")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.kill()
    assert psutil.wait_procs(family, timeout=20)[1] == []
    assert artifacts(home) == []
    assert json.loads(phi3("models", "list", "--json").stdout)["entries"] == []
    done = phi3("quantize", source, *WANTED)
    assert done.returncode == 0, done.stderr
    assert len(artifacts(home)) == 1
    assert not list((home / "staging").rglob("openvino_model.bin"))


def test_the_second_time_it_says_that_it_is_there(phi3, make_source):
    source = make_source()
    first = phi3("quantize", source, *WANTED)
    again = phi3("quantize", source, *WANTED)
    assert (first.returncode, again.returncode) == (0, 0)
    assert again.stdout == first.stdout
    assert "quantized from the original weights" in first.stderr
    assert "already in the store" in again.stderr


def test_damaged_weights_are_named_with_their_tensor(phi3, make_source, home):
    source = make_source()
    weights = source / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    done = phi3("quantize", source, *WANTED)
    assert done.returncode == 4
    assert "truncated: tensor lm_head.weight ends 100 bytes behind the end of the file" in done.stderr
    # Not a number, in the first half of the data: a bit that fell over.
    middle = len(whole) // 2 & ~1
    weights.write_bytes(whole[:middle] + b"\xff\x7f" + whole[middle + 2 :])
    done = phi3("quantize", source, *WANTED)
    assert done.returncode == 4
    assert "has values that are not finite" in done.stderr
    assert "tensor model.layers." in done.stderr
    assert artifacts(home) == []


def test_a_group_size_that_does_not_fit_is_said_with_the_figures(phi3, make_source, home):
    done = phi3("quantize", make_source(), *WANTED, "--group-size", "48")
    assert done.returncode == 2
    assert "groups of 48 do not divide the 64 inputs of model.layers.0.self_attn.qkv_proj.weight" in done.stderr
    assert artifacts(home) == []

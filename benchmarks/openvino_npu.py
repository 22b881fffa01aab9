"""What the form of the graph brings to OpenVINO's NPU pipeline, run on the CPU: first token and decoding, in turns.

The same weights are loaded in two forms. In the one that phi3-openvino writes, the NPU plugin's passes know the rotary
embedding and how the weights were rounded. In the other they know neither, as before: the note about the weights is
taken out, and the table of sine and cosine is switched off. A CPU says nothing about an NPU's speed.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

import _common
import numpy as np
import openvino as ov
import openvino_genai as genai
import phi3_core as phi3
from phi3_core.store.entry import ArtifactKey
from phi3_core.store.store import Store

SHAPE = {"MAX_PROMPT_LEN": 1024, "MIN_RESPONSE_LEN": 512}
ON_CPU = {"NPUW_DEVICES": "CPU", "NPUW_ONLINE_PIPELINE": "NONE", "INFERENCE_PRECISION_HINT": "f32"}


class Streamer(genai.StreamerBase):
    """Notes the time of each token, on the clock and of the processors."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[tuple[float, float]] = []

    def write(self, _token: object) -> genai.StreamingStatus:
        self.times.append((time.perf_counter(), time.process_time()))
        return genai.StreamingStatus.RUNNING

    def end(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=900, help="of the prompt")
    parser.add_argument("--precision", nargs="*", default=["fp16", "int4"], choices=["fp16", "int4"])
    parser.add_argument("--folder", type=Path, help="an artifact to measure instead of the sample model's")
    given = parser.parse_args()
    if given.folder:
        measure(given.folder.name, given.folder, given.rounds, given.tokens)
        return
    for precision in given.precision:
        with phi3.load("sample", device="openvino:NPU-CPU", precision=precision, purpose="answer"):
            key = ArtifactKey(backend="openvino", precision=precision, layout="npu")
            artifact = Store().artifact("sample", key)
        measure(precision, artifact.path, given.rounds, given.tokens)


def measure(name: str, artifact: Path, rounds: int, tokens: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        without = Path(scratch)
        (without / "openvino_model.bin").symlink_to((artifact / "openvino_model.bin").resolve())
        graph = (artifact / "openvino_model.xml").read_text(encoding="utf-8")
        graph = re.sub(r"<nncf>.*?</nncf>", "", graph, flags=re.DOTALL)
        (without / "openvino_model.xml").write_text(graph, encoding="utf-8")
        (without / "config.json").write_bytes((artifact / "config.json").read_bytes())
        known = genai.LLMPipeline(artifact, "NPU", {**ON_CPU, **SHAPE})
        unknown = genai.LLMPipeline(without, "NPU", {**ON_CPU, **SHAPE, "NPUW_LLM_CACHE_ROPE": "NO"})
    pairs = []
    for number in range(rounds + 1):
        # In turns, and in each round another one first.
        order = (known, unknown) if number % 2 else (unknown, known)
        measured = [one(pipeline, tokens) for pipeline in order]
        pair = tuple(measured if number % 2 else measured[::-1])
        print(f"  {name}: {pair}", file=sys.stderr)
        if number:  # the first one warms up
            pairs.append(pair)
    parts = ("first token, clock", "first token, processors", "16 tokens, clock", "16 tokens, processors")
    for place, what in enumerate(parts):
        ours, theirs = ([pair[form][place] for pair in pairs] for form in (0, 1))
        _common.compare(f"{name}, {what}", ours, theirs, "s", bound="none, since no NPU was measured")


def one(pipeline: genai.LLMPipeline, tokens: int) -> list[float]:
    """Read a prompt and write 17 tokens; the seconds of each on the clock and of the processors."""
    ids = np.random.default_rng(1).integers(3, 300, (1, tokens))
    config = genai.GenerationConfig(max_new_tokens=17, ignore_eos=True, do_sample=False)
    streamer = Streamer()
    start = time.perf_counter(), time.process_time()
    pipeline.generate(genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids))), config, streamer)
    first, last = streamer.times[0], streamer.times[-1]
    seconds = (first[0] - start[0], first[1] - start[1], last[0] - first[0], last[1] - first[1])
    return [round(value, 3) for value in seconds]


if __name__ == "__main__":
    main()

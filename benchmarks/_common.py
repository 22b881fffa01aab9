"""What the benchmarks share: the raw engine's script, timing of processes, and medians."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

QUESTION = "What is the capital of France?"

# The raw engine: what somebody would write who needs neither a plugin system nor a worker process. It reads the same
# weights, has the same settings, encodes the same prompt, and prints when the first token came and how fast the rest.
RAW = """
import json, sys, time
import numpy as np, openvino as ov, openvino_genai as genai
from tokenizers import Tokenizer
weights, text, new, properties = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
pipeline = genai.LLMPipeline(weights, "CPU", **properties)
tokenizer = Tokenizer.from_file(text + "/tokenizer.json")
prompt = "<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n"
prompt += f"<|im_start|>user\\n{sys.argv[5]}<|im_end|>\\n<|im_start|>assistant\\n"
ids = np.array([tokenizer.encode(prompt, add_special_tokens=False).ids])
times = []
class Streamer(genai.StreamerBase):
    def write(self, token):
        if not times:
            print("first", flush=True)
        times.append(time.perf_counter())
        return genai.StreamingStatus.RUNNING
    def end(self):
        pass
config = genai.GenerationConfig()
config.max_new_tokens, config.eos_token_id, config.do_sample = new, 2, False
config.stop_token_ids = {0, 2}
inputs = genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids)))
pipeline.generate(inputs, config, Streamer())
if len(times) > 1:
    print(json.dumps((len(times) - 1) / (times[-1] - times[0])))
"""


def sample() -> tuple[Path, Path, Path]:
    """The sample model's IR folder, its text folder, and its compiled-model cache; made if they are not there."""
    import phi3_core as phi3
    from phi3_core.store.entry import ArtifactKey
    from phi3_core.store.store import Store

    for _ in range(2):  # the first start converts, the second compiles into the cache
        with phi3.load("sample", device="openvino:CPU", purpose="answer") as model:
            model.generate(QUESTION)
    artifact = Store().artifact("sample", ArtifactKey(backend="openvino", precision="int4"))
    engines = Store().root / "engines" / artifact.manifest["digest"][:16]
    (ir,) = engines.glob("openvino-ir-*")
    (cache,) = engines.glob("openvino-CPU-*")
    return ir, artifact.path, cache


def raw_command(ir: Path, text: Path, new: int, properties: dict[str, str], question: str = QUESTION) -> list[str]:
    return [sys.executable, "-c", RAW, str(ir), str(text), str(new), json.dumps(properties), question]


def phi3_command(*arguments: str) -> list[str]:
    """The installed command."""
    return [str(Path(sysconfig.get_path("scripts"), "phi3.exe" if sys.platform == "win32" else "phi3")), *arguments]


def seconds(command: list[str]) -> float:
    """How long a command takes."""
    started = time.perf_counter()
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def seconds_to_first_byte(command: list[str]) -> float:
    """From the start of a process to the first byte that it prints."""
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=dict(os.environ)
    ) as process:
        if not process.stdout.read(1):
            raise RuntimeError(f"{command[:4]} printed nothing")
        took = time.perf_counter() - started
        process.stdout.read()
    return took


def compare(name: str, ours: list[float], theirs: list[float], unit: str, *, bound: str) -> None:
    """Print both medians, and the ratio pair by pair."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    print(
        f"{name}: {statistics.median(ours):.3f} {unit} against {statistics.median(theirs):.3f} {unit}; "
        f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}), "
        f"difference {statistics.median(m - o for m, o in zip(ours, theirs, strict=True)):+.3f}; bound: {bound}"
    )

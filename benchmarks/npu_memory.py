"""The memory of phi3-npu's worker over prompts of many different lengths, and of the library left to itself.

Left to itself the library compiles its kernels anew for every length. Both run the same model on the library's CPU
fallback; each prompt is read and one token picked. ``--plot FILE`` writes the figures as an SVG.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import phi3_core as phi3
import psutil
from phi3_core.store.store import Store
from phi3_core.values import GenerationRequest

ITSELF = """
import json, sys, tempfile
from pathlib import Path
import psutil
from phi3_npu import library
with tempfile.TemporaryDirectory() as folder:
    loaded = library.enter(Path(folder), "CPU")
    from phi3_npu.graph import Graph
    graph = Graph(Path(sys.argv[1]), loaded)
    for prompt in json.loads(sys.stdin.read()):
        graph.cache.length = 0
        graph.logits(graph.forward(prompt, len(prompt))[-1:], 1)
        print(psutil.Process().memory_info().rss, flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sample", help="with 200 lengths `sample` takes a quarter of an hour")
    parser.add_argument("--lengths", type=int, default=200, help="how many different lengths")
    parser.add_argument("--longest", type=int, default=200, help="tokens of the longest prompt")
    parser.add_argument("--itself", type=int, default=12, help="lengths for the library left to itself")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--plot", type=Path, help="an SVG file to write")
    given = parser.parse_args()
    drawn = random.Random(0)
    lengths = drawn.sample(range(1, max(given.longest, given.lengths) + 1), given.lengths)
    prompts = [[drawn.randrange(100, 40_000) for _ in range(length)] for length in lengths]
    ours = worker(given.model, prompts, given.precision)
    theirs = itself(given.model, prompts[: given.itself], given.precision)
    settled = ours[len(ours) // 10]
    print(
        f"phi3-npu, {len(ours)} lengths: {ours[0]:.0f} MB after the first, {settled:.0f} after a tenth of them, "
        f"{max(ours):.0f} at most, {ours[-1]:.0f} after the last; bound: 10 % over {settled:.0f}\n"
        f"the library left to itself, {len(theirs)} lengths: {theirs[0]:.0f} MB after the first, {theirs[-1]:.0f} "
        f"after the last, {(theirs[-1] - theirs[0]) / (len(theirs) - 1):.0f} MB a length"
    )
    if given.plot:
        given.plot.write_text(plot(ours, theirs), encoding="utf-8")


def worker(model: str, prompts: list[list[int]], precision: str) -> list[float]:
    """Megabytes of the worker after each prompt."""
    with phi3.load(model, device="npu:CPU", precision=precision) as loaded:
        engine = loaded._loaded.worker  # noqa: SLF001 - ids instead of text, and its process: nobody else needs them
        process = psutil.Process(engine._process.pid)  # noqa: SLF001
        sizes = []
        for prompt in prompts:
            list(engine.generate(GenerationRequest(prompt_ids=prompt, max_new_tokens=1)))
            sizes.append(process.memory_info().rss / 1e6)
        return sizes


def itself(model: str, prompts: list[list[int]], precision: str) -> list[float]:
    """Megabytes of a process that reads every prompt in one piece, as the library's own examples do."""
    (folder_of_weights,) = (Store().root / "artifacts").glob(f"{Path(model).name}*/npu-{precision}")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", ITSELF, str(folder_of_weights)],
            input=json.dumps(prompts),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=folder,
            env=dict(os.environ),
        )
    return [int(line) / 1e6 for line in done.stdout.splitlines() if line.isdigit()]


def plot(ours: list[float], theirs: list[float]) -> str:
    """Both curves over the number of lengths, as an SVG."""
    width, height, left, bottom = 640, 320, 60, 40
    top = 500 * (int(max(*ours, *theirs)) // 500 + 1)

    def curve(values: list[float], colour: str) -> str:
        points = " ".join(
            f"{left + (width - left - 20) * number / max(1, len(ours) - 1):.1f},"
            f"{height - bottom - (height - bottom - 20) * value / top:.1f}"
            for number, value in enumerate(values)
        )
        return f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>'

    lines = []
    for value in range(0, top + 1, 500):
        y = height - bottom - (height - bottom - 20) * value / top
        lines.append(f'<path d="M{left} {y:.1f}H{width - 20}" stroke="#ddd"/>')
        lines.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value}</text>')
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>'
    )
    words = (
        f'<text x="{width / 2}" y="{height - 10}" text-anchor="middle">different prompt lengths (of {len(ours)}); '
        "MB of memory: blue phi3-npu, red the library left to itself</text></svg>"
    )
    return "\n".join([opening, *lines, curve(theirs, "#c33"), curve(ours, "#26c"), words, ""])


if __name__ == "__main__":
    main()

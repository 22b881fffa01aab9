"""Decoding speed beside the raw engine: the same weights and prompts, short requests in turns, in two processes.

What else a machine does changes within seconds, so requests are short and there are many of them. ``--purpose answer``
is how ``phi3 run`` loads a model, and ``conversation`` how ``phi3.load`` and the server do. With ``--together`` the raw
engine is its pipeline for batches.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

import _common
from compare import Child, Prompts, artifacts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sample")
    parser.add_argument("--purpose", default="conversation", choices=["conversation", "answer"])
    parser.add_argument("--group", default="32", help="group of activations of both engines; 32 is OpenVINO's default")
    parser.add_argument("--raw-group", help="another one for the raw engine")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--prompt", type=int, default=32, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of each answer")
    parser.add_argument("--together", type=int, default=1, help="how many are asked at once")
    given = parser.parse_args()
    group = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": given.group}
    folders, text = artifacts(given.model, "openvino:CPU")
    prompts = Prompts(text)
    raw = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": given.raw_group or given.group}
    if given.purpose == "answer":
        raw["ATTENTION_BACKEND"] = "SDPA"
    # As phi3-core starts workers, so that both have their weights in large pages: docs/decisions/0053.
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    kind = "openvino" if given.together == 1 else "batched"
    engines = (
        Child("phi3", model=given.model, device="openvino:CPU", options=group, purpose=given.purpose),
        Child(kind, folder=str(Path(folders["openvino:CPU"])), properties=raw),
    )
    names = ("first token", "a token", "a token, with the prompts")
    figures: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in names}
    for each in range(given.rounds + 1):
        order = list(enumerate(engines))
        for place, engine in order[:: 1 if each % 2 else -1]:
            found = engine.ask([prompts.make(given.prompt) for _ in range(given.together)], given.tokens)
            if each:  # the first one warms up
                answers: list[dict[str, Any]] = found["answers"]
                figures["first token"][place].append(1000 * statistics.mean(answer["first_s"] for answer in answers))
                rates = [answer["rate"] for answer in answers if answer["rate"]]
                figures["a token"][place].append(1000 / statistics.mean(rates) / given.together)
                figures["a token, with the prompts"][place].append(1000 / found["total_rate"])
    for engine in engines:
        engine.close()
    for name, times in figures.items():
        _common.compare(name, *times, "ms", bound="ratio at most 1.02" if given.together == 1 else "at most 1.05")


if __name__ == "__main__":
    main()

"""Decoding speed beside the raw engine: the same weights and prompts, short requests in turns, in two processes.

What else a machine does changes within seconds, so requests are short and there are many of them. ``--purpose answer``
is how ``phi3 run`` loads a model, and ``conversation`` how ``phi3.load`` and the server do.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import _common
from compare import Child, Prompts, artifacts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sample")
    parser.add_argument("--purpose", default="conversation", choices=["conversation", "answer"])
    parser.add_argument("--group", default="32", help="group of activations of both engines; 32 is OpenVINO's default")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=32)
    given = parser.parse_args()
    folders, text = artifacts(given.model, "openvino:CPU")
    prompts = Prompts(text)
    group = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": given.group}
    raw = {"INFERENCE_PRECISION_HINT": "f32", **group}
    if given.purpose == "answer":
        raw["ATTENTION_BACKEND"] = "SDPA"
    # As phi3-core starts workers, so that both have their weights in large pages: docs/decisions/0053.
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    engines = (
        Child("phi3", model=given.model, device="openvino:CPU", options=group, purpose=given.purpose),
        Child("openvino", folder=str(Path(folders["openvino:CPU"])), properties=raw),
    )
    times: tuple[list[float], list[float]] = ([], [])
    for each in range(given.rounds + 1):
        order = list(zip(engines, times, strict=True))
        for engine, found in order[:: 1 if each % 2 else -1]:
            answer: dict[str, Any] = engine.ask([prompts.make(32)], given.tokens)["answers"][0]
            if each:  # the first one warms up
                found.append(1000 / answer["rate"])
    for engine in engines:
        engine.close()
    _common.compare("a token", *times, "ms", bound="ratio at most 1.02")


if __name__ == "__main__":
    main()

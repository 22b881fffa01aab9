"""Quantize, load and run every shape of the family on the library, one after the other in this process.

Started by ``test_families.py`` with a folder to work in, because the library may end the process that uses it. Prints
a line of JSON for each model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.forward import logits
from phi3_core.evaluation.metrics import measure
from phi3_core.quantization.calibration import calibrate
from phi3_core.store import sidecars
from phi3_core.testing.checkpoints import TINY, write_random
from phi3_core.values import Artifact, Device, GenerationRequest, Recipe, Source
from phi3_npu import engine, graph, opening, quantization

CPU = Device(backend="npu", id="CPU", kind="cpu", name="CPU")
IDS = [int(token) for token in np.random.default_rng(1).integers(3, 320, 96)]


def main(folder: Path) -> None:
    cases = [(name, not config.get("tie_word_embeddings", False)) for name, config in TINY.items()]
    for name, tied in (*cases, ("phi-4-mini", True)):
        source = write_random(folder / f"{name}-{tied}", {**TINY[name], "tie_word_embeddings": tied})
        checkpoint = Checkpoint.open(source)
        calibrate(checkpoint, [IDS[:48]]).save(folder / "calibration.npz")
        made = make(source, "int8", folder)
        print(json.dumps({"name": name, "tied": tied, "precision": "int8", **judge(checkpoint, made)}))
    made = make(source, "int8", folder)
    graph._WIDEST = 100  # as if 320 outputs were more than the library takes
    print(json.dumps({"name": "cut", "tied": True, "precision": "int8", **judge(checkpoint, made)}))


def make(source: Path, precision: str, folder: Path) -> Artifact:
    output = folder / "artifacts" / f"{source.name}-{precision}"
    output.mkdir(parents=True, exist_ok=True)
    extra = {"calibration": str(folder / "calibration.npz")}
    recipe = Recipe(precision=precision, extra=extra)
    quantization.quantize(Source(path=source, model="tiny"), CPU, recipe, output, lambda *_, **__: None)
    sidecars.copy_sidecars(source, output)  # as core does
    return Artifact(path=output, backend="npu", precision=precision, manifest={"digest": output.name})


def judge(checkpoint: Checkpoint, artifact: Artifact) -> dict[str, object]:
    loaded = engine.load(artifact, CPU, opening.check(artifact, {}))
    try:
        ids = IDS[: min(72, loaded.context_length)]
        quality = measure(ids, logits(checkpoint, ids), loaded.logits(ids))

        def told(prompt):
            return list(loaded.generate(GenerationRequest(prompt_ids=prompt, max_new_tokens=5)))

        return {
            "kl": quality.kl_mean,
            "top1": quality.top1_agreement,
            "context": loaded.context_length,
            "fresh": told(ids[:-6]),
        }
    finally:
        loaded.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

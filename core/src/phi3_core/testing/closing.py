"""Close an engine twice, which core's worker never does: ``python -m phi3_core.testing.closing JSON``."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from typing import Any

from phi3_core.plugin import Backend, PluginHooks
from phi3_core.values import Artifact, Device, GenerationRequest

CLOSED = "phi3: closed twice"
"""What is printed at the end."""


def main(given: Mapping[str, Any]) -> None:
    """Load an engine, leave an answer unfinished, and close the engine twice, all in one thread."""
    hooks = PluginHooks(Backend(**given["backend"]))
    artifact, device = Artifact(**given["artifact"]), Device(**given["device"])
    engine = hooks.load(artifact, device, given["options"], "conversation")
    ids = hooks.generate(engine, GenerationRequest(prompt_ids=given["prompt"], max_new_tokens=20))
    next(ids)
    with contextlib.suppress(Exception):  # an iterator that cannot be closed has a test of its own
        ids.close()  # type: ignore[attr-defined]
    engine.close()
    engine.close()
    print(f"\n{CLOSED}", flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

"""How long it takes to read a GGUF file's header: beside the reader of the ``gguf`` package."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import _common
from gguf import GGUFReader
from phi3_core.checkpoint.gguf import describe_gguf
from phi3_core.models import sample_package


def seconds(read: Callable[[Path], object], path: Path) -> float:
    """How many seconds of this process ``read`` takes."""
    started = time.process_time()
    read(path)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    package = sample_package.installed()
    if package is None:
        raise SystemExit(f"needs the sample model: {sample_package.HINT}")
    rounds = [(seconds(describe_gguf, package.file), seconds(GGUFReader, package.file)) for _ in range(given.rounds)]
    ours, theirs = ([pair[side] for pair in rounds] for side in (0, 1))
    _common.compare("describing the sample's GGUF file", ours, theirs, "s", bound="ratio under 0.4")


if __name__ == "__main__":
    main()

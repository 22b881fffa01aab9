"""How long it takes until something happens: beside the raw engine, and beside a bare interpreter."""

from __future__ import annotations

import argparse
import sys

import _common


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    ir, text, cache = _common.sample()
    raw = _common.raw_command(ir, text, 8, {"ATTENTION_BACKEND": "SDPA", "CACHE_DIR": str(cache)})
    run = _common.phi3_command("run", _common.QUESTION, "-m", "sample", "-d", "openvino:CPU", "-q")
    pairs = (
        ("process start to first token", run, raw, _common.seconds_to_first_byte, "difference at most 0.3 s"),
        ("phi3 --help", _common.phi3_command("--help"), [sys.executable, "-c", "pass"], _common.seconds, "ratio 5"),
        (
            "phi3 devices, warm, against importing openvino_genai",
            _common.phi3_command("devices"),
            [sys.executable, "-c", "import openvino_genai"],
            _common.seconds,
            "ratio under 1",
        ),
    )
    for name, ours, theirs, measure, bound in pairs:
        measure(ours), measure(theirs)
        rounds = [(measure(ours), measure(theirs)) for _ in range(given.rounds)]
        _common.compare(name, [pair[0] for pair in rounds], [pair[1] for pair in rounds], "s", bound=bound)


if __name__ == "__main__":
    main()

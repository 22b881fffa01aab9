"""Decoding speed beside the raw engine: the same weights, settings and prompt, in turns."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import _common

STORY = "Tell me a long story about a lighthouse keeper and the sea."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=200)
    given = parser.parse_args()
    ir, text, cache = _common.sample()
    properties = {"ATTENTION_BACKEND": "SDPA", "CACHE_DIR": str(cache)}
    ours, theirs = [], []
    for _ in range(given.rounds):
        command = _common.phi3_command("run", STORY, "-m", "sample", "-d", "openvino:CPU", "--json", "-q")
        done = subprocess.run(
            [*command, "--max-new-tokens", str(given.tokens)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            text=True,
        )
        ours.append(json.loads(done.stdout)["decode_tokens_per_s"])
        raw = _common.raw_command(ir, text, given.tokens, properties, STORY)
        done = subprocess.run(raw, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, text=True)
        theirs.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"  {ours[-1]:.1f} and {theirs[-1]:.1f} tokens/s", file=sys.stderr)
    _common.compare("decoding", ours, theirs, "tokens/s", bound="ratio at least 0.97")


if __name__ == "__main__":
    main()

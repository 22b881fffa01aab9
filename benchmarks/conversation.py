"""First token of each turn of a conversation: the KV cache of the common prefix is reused, so that it stays flat."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import phi3_core as phi3


def turns(model: str, count: int, *, max_new_tokens: int) -> Iterator[phi3.Reply]:
    """Yield the answers of a conversation with this runtime, whose prompts have all turns before."""
    said: list[phi3.Message] = []
    with phi3.load(model, device="openvino:CPU") as loaded:
        loaded.generate("Hello", max_new_tokens=4)  # the very first request compiles kernels
        for turn in range(1, count + 1):
            said.append({"role": "user", "content": f"Question {turn}: tell me three facts about the number {turn}."})
            reply = loaded.chat(said, max_new_tokens=max_new_tokens)
            said.append({"role": "assistant", "content": reply.text})
            yield reply


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=10)
    given = parser.parse_args()
    times = []
    for turn, reply in enumerate(turns("sample", given.turns, max_new_tokens=60), start=1):
        times.append(reply.time_to_first_token_s or 0.0)
        print(f"  turn {turn}: {reply.prompt_tokens} prompt tokens, first token after {times[-1]:.3f} s")
    print(f"conversation: turn {given.turns} / turn 1: {times[-1] / times[0]:.2f}; bound: at most 2")


if __name__ == "__main__":
    main()

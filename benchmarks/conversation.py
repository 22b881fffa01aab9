"""First token of each turn of a conversation: the KV cache of the common prefix is reused, so that it stays flat."""

from __future__ import annotations

import argparse

import phi3_core as phi3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=10)
    given = parser.parse_args()
    said: list[phi3.Message] = []
    times = []
    with phi3.load("sample", device="openvino:CPU") as model:
        model.generate("Hello")  # the very first request compiles kernels
        for turn in range(1, given.turns + 1):
            said.append({"role": "user", "content": f"Question {turn}: tell me three facts about the number {turn}."})
            reply = model.chat(said, max_new_tokens=60)
            said.append({"role": "assistant", "content": reply.text})
            times.append(reply.time_to_first_token_s)
            print(f"  turn {turn}: {reply.prompt_tokens} prompt tokens, first token after {times[-1]:.3f} s")
    print(f"conversation: turn {given.turns} / turn 1: {times[-1] / times[0]:.2f}; bound: at most 2")


if __name__ == "__main__":
    main()

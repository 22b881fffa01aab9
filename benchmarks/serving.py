"""What the server costs: its rate beside this runtime's own from Python, and how much later its first byte comes.

Both have an engine of their own for the model ``sample``, and are asked in turns, one idle while the other answers.
"""

from __future__ import annotations

import argparse
import functools
import http.client
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import _server
import phi3_core as phi3
from _common import compare

STORY = "Tell me a long story about the keeper of light number {}."
Ask = Callable[[str, int], tuple[float, int]]
"""Asks a prompt for so many tokens, and returns the seconds until its first text, and its number of tokens."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="openvino:CPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new", type=int, default=128, help="tokens of an answer")
    given = parser.parse_args()
    with (
        phi3.load("sample", device=given.device) as model,
        _server.serving("--model", "sample", "--device", given.device, "--quiet") as (_, port),
    ):

        def from_python(prompt: str, new: int) -> tuple[float, int]:
            started, first = time.perf_counter(), 0.0
            stream = model.stream(prompt, max_new_tokens=new)
            for _ in stream:
                first = first or time.perf_counter() - started
            return first, stream.reply.completion_tokens

        def by_server(prompt: str, new: int) -> tuple[float, int]:
            return _server.stream(http.client.HTTPConnection("127.0.0.1", port, timeout=300), prompt, new)

        asks = (by_server, from_python)
        in_turns(asks, lambda ask, _: rate(ask, 0, count=8, new=given.new), 1)  # warm
        for count in (1, 8):
            ours, own = in_turns(asks, functools.partial(rate, count=count, new=given.new), given.rounds)
            compare(f"{count} at once", ours, own, "tokens/s", bound="a ratio of 0.9 with eight")
        ours, own = in_turns(asks, lambda ask, each: ask(STORY.format(10_000 + each), 2)[0], given.rounds * 6)
        compare("first text", ours, own, "s", bound="5 ms later")


def in_turns(asks: tuple[Ask, ...], measure: Callable[[Ask, int], float], rounds: int) -> list[list[float]]:
    """Measure each in every round, in an order that changes from round to round."""
    found: list[list[float]] = [[] for _ in asks]
    for each in range(1, rounds + 1):
        for place in sorted(range(len(asks)), reverse=each % 2 == 0):
            found[place].append(measure(asks[place], each))
    return found


def rate(ask: Ask, each: int, *, count: int, new: int) -> float:
    """Tokens per second in all, of so many answers at once."""
    prompts = [STORY.format(each * 100 + number) for number in range(count)]
    started = time.perf_counter()
    with ThreadPoolExecutor(count) as threads:
        tokens = sum(tokens for _, tokens in threads.map(lambda prompt: ask(prompt, new), prompts))
    return tokens / (time.perf_counter() - started)


if __name__ == "__main__":
    main()

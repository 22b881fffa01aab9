"""Prompt lookup: decoding with and without it, in turns, on texts that quote their prompt and on texts that do not."""

from __future__ import annotations

import argparse
import sys

import _common

TEXT = (
    "The lighthouse keeper climbed the stairs every evening at six. He carried a lamp, a book and a small loaf of "
    "bread. The sea was quiet in summer and loud in winter, and the gulls nested under the gallery. On the last day of "
    "October a ship with green sails came into the bay, and nobody on the island had seen its flag before."
)
CODE = "\n\n".join(f"def area_{n}(width, height):\n    return {n} * width * height" for n in range(1, 9))
_TWICE = "at least 2 if it does so faithfully"
PROMPTS = {
    "repeats a text": (f"Repeat the following text word for word, and nothing else:\n\n{TEXT}", _TWICE),
    "repeats code": (f"Show this file again, unchanged:\n\n{CODE}", _TWICE),
    "a story": ("Tell me a long story about a lighthouse keeper and the sea.", "at least 1"),
    "an explanation": ("Explain how a refrigerator works.", "at least 1"),
    "a summary": (f"Summarize this text in two sentences:\n\n{TEXT}", "at least 1"),
}


def main() -> None:
    import phi3_core as phi3

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sample")
    parser.add_argument("--device", default="openvino:CPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=120)
    given = parser.parse_args()
    with phi3.load(given.model, device=given.device, purpose="answer") as model:
        for name, (prompt, bound) in PROMPTS.items():
            found: dict[str, list[float]] = {"auto": [], "off": []}
            texts = {}
            for number in range(given.rounds + 1):
                for lookup, rates in found.items():
                    reply = model.generate(prompt, max_new_tokens=given.tokens, lookup=lookup)
                    texts[lookup] = reply.text
                    if number:  # the first one warms up
                        rates.append(reply.decode_tokens_per_s or 0.0)
            same = "the same text" if texts["auto"] == texts["off"] else "texts that part at a tie"
            print(f"  {reply.completion_tokens} tokens, {same}", file=sys.stderr)
            _common.compare(name, found["auto"], found["off"], "tokens/s", bound=f"ratio {bound}")


if __name__ == "__main__":
    main()

"""Make ``docs/benchmarks.md`` and its chart from the figures that ``compare.py`` has kept."""

from __future__ import annotations

import argparse
import html
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BAR, ROW, LEFT, RIGHT = 260, 22, 190, 150
FIRST = "first token, s"
RATE = "tokens/s"


def spread(values: list[float]) -> tuple[float, float, float] | None:
    """Median, smallest and largest; None without any."""
    return (statistics.median(values), min(values), max(values)) if values else None


def median(answers: list[dict[str, Any]], key: str) -> tuple[float, float, float] | None:
    """Median, smallest and largest of a figure over all rounds and prompts; None without any."""
    return spread([each[key] for answer in answers for each in answer["answers"] if each.get(key)])


def cell(found: tuple[float, float, float] | None) -> str:
    if found is None:
        return "-"
    digits = 3 if found[0] < 10 else 1
    middle, low, high = (f"{value:.{digits}f}".rstrip("0").rstrip(".") for value in found)
    return f"{middle} ({low} to {high})"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def of_prompts(found: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    lengths = list(found)
    head = ["", *(f"{length}: {what}" for length in lengths for what in (FIRST, RATE))]
    rows = [
        [name, *(cell(median(found[length][name], key)) for length in lengths for key in ("first_s", "rate"))]
        for name in found[lengths[0]]
    ]
    return table(head, rows)


def of_together(found: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    counts = list(found)
    rows = []
    for name in found[counts[0]]:
        totals = [[answer["total_rate"] for answer in found[count][name]] for count in counts]
        rows.append([name, *(cell(spread(each)) for each in totals)])
    return table(["tokens/s in all", *counts], rows) + "\n\n" + _shares_together(found)


def _shares_together(found: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """This runtime's rate against one answer alone and against the raw pipeline, and how late the last one begins."""
    alone = statistics.median(each["total_rate"] for each in found["1"]["phi3-openvino"]) if "1" in found else None
    rows = []
    for count, engines in found.items():
        ours = engines["phi3-openvino"]
        (theirs,) = (each for name, each in engines.items() if name.startswith("openvino-genai"))
        rate = statistics.median(each["total_rate"] for each in ours)
        against = [mine["total_rate"] / other["total_rate"] for mine, other in zip(ours, theirs, strict=True)]
        begins = [[answer["first_s"] for answer in each["answers"]] for each in ours]
        rows.append(
            [
                count,
                cell(spread(against)),
                f"{rate / alone:.1f}" if alone else "",
                f"{statistics.median(max(each) / min(each) for each in begins):.2f}",
            ]
        )
    head = ["phi3-openvino", "against openvino-genai", "against one alone", "the last first token against the first"]
    return table(head, rows)


def of_memory(found: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    rows = []
    for name in next(iter(found.values())):
        seen = [each["memory"] for answers in found.values() for each in answers[name] if each.get("memory")]
        if seen:
            rows.append([name, f"{max(seen) / 1e9:.1f}"])
    return table(["", "GB after the answers above, files that are mapped counted too"], rows)


def of_quantizing(found: dict[str, float]) -> str:
    return table(
        ["seconds", "peak of private memory, GB"], [[f"{found['seconds']:.0f}", f"{found['bytes'] / 1e9:.2f}"]]
    )


def ratios(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], key: str) -> str:
    """The ratio of two engines round by round: median, smallest and largest."""
    pairs = [(mine["answers"][0][key], other["answers"][0][key]) for mine, other in zip(ours, theirs, strict=True)]
    return cell(spread([mine / other for mine, other in pairs if mine and other]))


def of_ratios(found: dict[str, Any]) -> str:
    rows = []
    for length, engines in found["prompts"].items():
        for name in engines:
            if name not in {"phi3-openvino", "phi3-dml"}:
                ours = engines["phi3-dml" if name == "onnxruntime-genai" else "phi3-openvino"]
                first, rate = (ratios(ours, engines[name], key) for key in ("first_s", "rate"))
                rows.append([length, name, first, rate])
    return table(
        ["prompt", "this runtime against", "first token (lower is better)", "decoding (higher is better)"], rows
    )


def chart(found: dict[str, Any], length: str) -> str:
    """Bars of the decoding speed after a prompt of ``length`` tokens, as SVG."""
    values = [(name, median(answers, "rate")) for name, answers in found["prompts"][length].items()]
    bars = [(name, each[0]) for name, each in values if each]
    largest = max(value for _, value in bars)
    height = ROW * len(bars) + 30
    title = html.escape(f"Tokens per second, {found['model']}, after a prompt of {length} tokens")
    box = f'viewBox="0 0 {LEFT + BAR + RIGHT} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif" font-size="12">',
        f"<title>{title}</title>",
        f'<text x="0" y="14" fill="#808080">{title}</text>',
    ]
    for place, (name, value) in enumerate(bars):
        y = 26 + place * ROW
        colour = "#3f51b5" if name.startswith("phi3") else "#9e9e9e"
        lines += [
            f'<text x="{LEFT - 6}" y="{y + 13}" text-anchor="end" fill="#808080">{html.escape(name)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{BAR * value / largest:.1f}" height="{ROW - 5}" fill="{colour}"/>',
            f'<text x="{LEFT + BAR * value / largest + 6:.1f}" y="{y + 13}" fill="#808080">{value:.1f}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def of_turns(found: list[dict[str, Any]]) -> str:
    rows = [
        [str(place), str(turn["prompt_tokens"]), f"{turn['first_s']:.3f}"]
        for place, turn in enumerate(found, start=1)
        if place in {1, 2, 5, 10, 20}
    ]
    return table(["turn", "tokens of the prompt", FIRST], rows)


def of_start(found: dict[str, list[float]]) -> str:
    return table(["", "seconds"], [[name, cell(spread(each))] for name, each in found.items()])


SECTIONS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "prompts": ("One answer, by the tokens of its prompt", of_prompts),
    "busy": ("The same with another process on each core", of_prompts),
    "together": ("Several answers at once", of_together),
    "turns": ("A conversation", of_turns),
    "start": ("Start of the process to the first token", of_start),
    "quantizing": ("Quantizing from the original weights to int4, without its check", of_quantizing),
}


def shares(found: dict[str, Any]) -> str:
    """What part of the memory's read bandwidth decoding uses, after the shortest prompt."""
    limit = found["machine"]["read_bandwidth_gb_s"] * 1e9 / found["weights_bytes"]
    answers = next(iter(found["prompts"].values()))
    rates = {name: median(answers[name], "rate") for name in ("phi3-openvino", "openvino-genai, float32")}
    return ", ".join(f"{each[0] / limit:.0%} ({name})" for name, each in rates.items() if each)


def section(found: dict[str, Any], picture: str) -> str:
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    processor = f"{machine['processor']}, {machine['cores']} cores ({', '.join(machine['instructions'])})"
    bandwidth = f"The cores read {machine['read_bandwidth_gb_s']:.0f} GB/s together, measured in the same run."
    weights = f"The weights have {found['weights_bytes'] / 1e9:.2f} GB."
    parts = [
        f"## {found['model']}",
        f"{processor}, Python {machine['python']}, on {machine['date']}: {versions}.",
        f"{bandwidth} {weights} Of the rate that this allows, decoding reaches {shares(found)}.",
        *([found["remark"]] if "remark" in found else ()),
        f"![Tokens per second]({picture})",
    ]
    for name, (title, make) in SECTIONS.items():
        if name in found:
            parts += [f"### {title}", make(found[name])]
            if name == "together":
                new = found["new_together"]
                parts.insert(-1, f"Prompts of 64 tokens, answers of {new}, with the reading of the prompts.")
            if name == "prompts":
                parts += [of_ratios(found), of_memory(found[name])]
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """# Benchmarks

This runtime beside the engines that it uses, called directly: the same weights, prompts of the same tokens, in turns in
one run. Medians, and in brackets the smallest and largest. `benchmarks/compare.py` measures
and `benchmarks/compare_page.py` makes this page; the figures of each round are in `benchmarks/results`. Other
processors give other figures: compare within a table only.

"float32" is OpenVINO with `INFERENCE_PRECISION_HINT=f32`, as this runtime sets it; "groups of 128" rounds activations
in such groups besides. `sample` has weights in groups of 32, so there OpenVINO computes in float32 without rounding,
which is slow: this runtime does not choose it (decision 32). llama.cpp, where it is there, is built with the machine's
instructions and has weights in Q4_0; its own benchmarks were used, which take random tokens.

The speed of a shared machine changes within seconds, by more than these engines differ, so few rounds tell little about
decoding: in short requests that alternate (`benchmarks/decoding.py`) a token of full-size Phi-3-mini took as long as in
the raw pipeline with the same groups ([decision 55](decisions/0055-small-pages-for-the-kv-cache.md)). Why those groups
are chosen although others decode faster is [decision 56](decisions/0056-prompts-and-company-decide-the-groups.md).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="*", type=Path, help="files of compare.py; by default all that are kept")
    given = parser.parse_args()
    parts = [INTRODUCTION]
    files = given.results or (ROOT / "benchmarks" / "results").glob("*.json")
    results = [(file, json.loads(file.read_text(encoding="utf-8"))) for file in files]
    for file, found in sorted(results, key=lambda each: each[1]["weights_bytes"]):
        picture = f"benchmarks-{file.stem}.svg"
        (ROOT / "docs" / picture).write_text(chart(found, next(iter(found["prompts"]))), encoding="utf-8")
        parts.append(section(found, picture))
    (ROOT / "docs" / "benchmarks.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()

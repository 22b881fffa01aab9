"""This runtime beside the raw engines and llama.cpp: the same weights and prompts, in turns, on this machine's CPU.

``compare.py`` measures ``sample`` and keeps every figure in ``results``; ``compare_page.py`` makes the page. For full
size, give the folder of a checkpoint (``quantizing.py --folder`` keeps a random one). ``--llama`` names a folder with
llama.cpp's ``llama-bench`` and ``llama-batched-bench``, ``--gguf`` the same weights for it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _common import phi3_command, raw_command, seconds_to_first_byte
from conversation import turns
from quantizing import measured

PROMPTS = (32, 512, 2048)
TOGETHER = (1, 2, 4, 8, 16)
_LLAMA_ROUNDS = 2
"""Of several answers at once: llama.cpp takes several times as long as the others."""
_SETTLING_S = 1.0
"""Before each request: threads of the engine before it may still wait by spinning."""
STORY = "the keeper of the light walked down to the sea and counted ships until the morning came and all was well"


class Child:
    """An engine in a process of its own."""

    def __init__(self, kind: str, **given: Any) -> None:
        command = [sys.executable, str(Path(__file__).with_name("_engines.py")), kind, json.dumps(given)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self._read()

    def _read(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def ask(self, prompts: list[dict[str, Any]], new: int) -> dict[str, Any]:
        self._process.stdin.write(json.dumps({"prompts": prompts, "new": new}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(30)


class Llama:
    """llama.cpp's own benchmarks, which take random ids."""

    def __init__(self, folder: str, gguf: str, threads: int) -> None:
        self._folder, self._gguf, self._threads = Path(folder), gguf, threads

    def ask(self, prompts: list[dict[str, Any]], new: int) -> dict[str, Any]:
        count, length = len(prompts), len(prompts[0]["ids"])
        common = ["-m", self._gguf, "-t", str(self._threads)]
        if count == 1:
            rows = self._run("llama-bench", *common, "-p", str(length), "-n", str(new), "-r", "1", "-o", "json")
            rates = {("prompt" if row["n_prompt"] else "new"): row["avg_ts"] for row in json.loads(rows)}
            first = length / rates["prompt"]
            answer = {"first_s": first, "rate": rates["new"], "count": new}
            return {"answers": [answer], "total_rate": new / (first + new / rates["new"])}
        sizes = ["-npp", str(length), "-ntg", str(new), "-npl", str(count), "-c", str(count * (length + new + 8))]
        lines = self._run("llama-batched-bench", *common, *sizes, "--output-format", "jsonl").splitlines()
        row = json.loads(next(line for line in reversed(lines) if line.startswith("{")))
        answers = [{"first_s": row["t_pp"], "rate": row["speed_tg"] / count, "count": new}] * count
        return {"answers": answers, "total_rate": count * new / row["t"]}

    def _run(self, name: str, *arguments: str) -> str:
        return subprocess.run([self._folder / name, *arguments], capture_output=True, check=True, text=True).stdout

    def close(self) -> None:
        pass


class Prompts:
    """Prompts of about so many tokens, none of which begins like another one."""

    def __init__(self, folder: str) -> None:
        from phi3_core.text.tokenizer import Tokenizer

        self._tokenizer = Tokenizer.from_folder(Path(folder), subject=folder)
        self._made = 0

    def make(self, length: int) -> dict[str, Any]:
        self._made += 1
        story = STORY.split()
        words = [f"{self._made}.", *(story[(self._made + place) % len(story)] for place in range(length))]
        while len(ids := self._encode(words)) > length and len(words) > 1:
            words = words[: -max(1, (len(ids) - length) // 2)]
        return {"text": " ".join(words), "ids": list(ids), "stops": list(self._tokenizer.stop_ids)}

    def _encode(self, words: list[str]) -> Any:
        return self._tokenizer.encode_chat([{"role": "user", "content": " ".join(words)}])


def artifacts(model: str, *devices: str) -> tuple[dict[str, str], str]:
    """The folders with the weights for each device, and that of the tokenizer; made if they are not there."""
    from phi3_core.models.request import ModelRequest
    from phi3_core.pipeline import fetch
    from phi3_core.selection import DeviceRequest

    found = {}
    for device in devices:
        asked = DeviceRequest(device=device, precision="int4")
        resolved = fetch(ModelRequest(model=model, device=asked)).resolved
        found[device] = str(_graph_folder(resolved.artifact))
    return found, str(resolved.tokenizer_dir)


def _graph_folder(artifact: Any) -> Path:
    """The folder with the graph; that of a GGUF file is made when it is first loaded."""
    import phi3_core as phi3
    from phi3_core.store.store import Store

    if not list(artifact.path.glob("*.gguf")):
        return Path(artifact.path)
    with phi3.load(artifact.manifest["model"], device="openvino:CPU") as model:
        model.generate("Hello", max_new_tokens=1)
    (folder,) = (Store().root / "engines" / artifact.manifest["digest"][:16]).glob("openvino-ir-*")
    return folder


def _holds_groups(folder: str, size: int) -> bool:
    """Whether the groups of the weights are made of groups of this size."""
    from phi3_openvino import tuning

    form = tuning.form_of_weights(Path(folder, "openvino_model.xml"))
    return form is not None and form.holds(size)


def bandwidth() -> float:
    """GB/s that all cores read together."""
    data = [np.ones(2**27, dtype=np.uint8) for _ in range(os.cpu_count() or 1)]
    best = 0.0
    for _ in range(5):
        threads = [threading.Thread(target=lambda each=each: each.view(np.uint64).max()) for each in data]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = max(best, sum(each.nbytes for each in data) / (time.perf_counter() - started) / 1e9)
    return best


def _spin() -> None:
    while True:
        pass


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """Keep every core busy with another process."""
    processes = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(os.cpu_count() or 1)]
    for process in processes:
        process.start()
    yield
    for process in processes:
        process.kill()


def machine() -> dict[str, Any]:
    """Which processor and versions gave the figures."""
    from phi3_core.machine import this_machine

    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    names = ("phi3-core", "phi3-openvino", "phi3-dml", "openvino-genai", "onnxruntime-genai")
    return {
        "processor": next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), ""),
        "cores": os.cpu_count(),
        "instructions": [flag for flag in ("avx2", "avx512_vnni", "avx512_bf16", "amx_int8") if flag in flags],
        "memory_bytes": this_machine().memory_bytes,
        "read_bandwidth_gb_s": bandwidth(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "date": time.strftime("%Y-%m-%d"),
    }


class Comparison:
    """The engines that are compared, and what is measured."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._folders, self._text = artifacts(given.model, "openvino:CPU", "dml:CPU")
        self._prompts = Prompts(self._text)
        self._plain = {"INFERENCE_PRECISION_HINT": "f32"}
        self._tuned = {**self._plain, "DYNAMIC_QUANTIZATION_GROUP_SIZE": given.group}
        self._tuned_name = f"openvino-genai, groups of {given.group}"
        self._ours = Child("phi3", model=given.model, device="openvino:CPU")
        self._llama = {}
        if given.llama and given.gguf:
            self._llama["llama.cpp"] = Llama(given.llama, given.gguf, os.cpu_count() or 1)

    def run(self) -> Iterator[dict[str, Any]]:
        """Measure everything, and yield all figures after each section."""
        given, folder = self._given, self._folders["openvino:CPU"]
        found: dict[str, Any] = {"machine": machine(), "model": Path(given.model).name, "new": given.new}
        found["weights_bytes"] = Path(folder, "openvino_model.bin").stat().st_size
        with self._engines(self._alone()) as engines:
            found["prompts"] = {length: self._ask(engines, int(length), 1) for length in map(str, given.prompts)}
            yield found
            with busy_cores():
                few = max(2, given.rounds // 2)  # each takes several times as long
                found["busy"] = {str(given.prompts[0]): self._ask(engines, given.prompts[0], 1, rounds=few)}
            yield found
        # Groups of activations that are larger than those of the weights are the slowest choice, not a tuned one.
        fits = _holds_groups(folder, int(given.group))
        name, properties = (self._tuned_name, self._tuned) if fits else ("openvino-genai, float32", self._plain)
        batched = Child("batched", folder=folder, properties=properties)
        with self._engines({"phi3-openvino": self._ours, name: batched, **self._llama}) as engines:
            found["together"], found["new_together"] = {}, given.new_together
            for count in map(str, given.together):
                found["together"][count] = self._ask(
                    engines, 64, int(count), rounds=given.rounds_together, new=given.new_together
                )
                yield found
        self._ours.close()
        found["turns"] = [
            {"prompt_tokens": reply.prompt_tokens, "first_s": reply.time_to_first_token_s}
            for reply in turns(given.model, 20, max_new_tokens=40)
        ]
        yield found
        found["start"] = self._start()
        yield found
        if Path(given.model).is_dir():
            with tempfile.TemporaryDirectory() as home:
                wanted = ["--device", "openvino:CPU", "--precision", "int4", "--no-check"]
                seconds, private = measured(Path(given.model), wanted, Path(home))
            found["quantizing"] = {"seconds": seconds, "bytes": private}
            yield found

    def _alone(self) -> dict[str, Any]:
        folder, onnx = self._folders["openvino:CPU"], self._folders["dml:CPU"]
        return {
            "phi3-openvino": self._ours,
            "openvino-genai, defaults": Child("openvino", folder=folder, properties={}),
            "openvino-genai, float32": Child("openvino", folder=folder, properties=self._plain),
            self._tuned_name: Child("openvino", folder=folder, properties=self._tuned),
            "phi3-dml": Child("phi3", model=self._given.model, device="dml:CPU"),
            "onnxruntime-genai": Child("onnxruntime", folder=onnx),
            **self._llama,
        }

    @contextlib.contextmanager
    def _engines(self, engines: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Warm engines up, and close all but this runtime's first one."""
        for engine in engines.values():
            engine.ask([self._prompts.make(64)], 4)
        yield engines
        for engine in engines.values():
            if engine is not self._ours:
                engine.close()

    def _ask(
        self, engines: dict[str, Any], length: int, count: int, *, rounds: int | None = None, new: int | None = None
    ) -> dict[str, list[dict[str, Any]]]:
        """Ask each engine in turn, in each round from another one on."""
        print(f"{count} with {length} prompt tokens", file=sys.stderr)
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in engines}
        order = list(engines.items())
        for each in range(rounds or self._given.rounds):
            order.append(order.pop(0))
            for name, engine in order:
                if count > 1 and isinstance(engine, Llama) and each >= _LLAMA_ROUNDS:
                    continue
                time.sleep(_SETTLING_S)
                prompts = [self._prompts.make(length) for _ in range(count)]
                found[name].append(engine.ask(prompts, new or self._given.new))
        return found

    def _start(self) -> dict[str, list[float]]:
        """Seconds from the start of a process to its first token."""
        given, question = self._given, "What is the capital of France?"
        folder = Path(self._folders["openvino:CPU"])
        commands = {
            "phi3 run": phi3_command(
                "run", question, "-m", given.model, "-d", "openvino:CPU", "-q", "--max-new-tokens", "4"
            ),
            "openvino-genai": raw_command(folder, Path(self._text), 4, {}, question),
        }
        for command in commands.values():
            seconds_to_first_byte(command)
        found: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(given.rounds):
            for name, command in commands.items():
                found[name].append(seconds_to_first_byte(command))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="sample")
    parser.add_argument("--output", type=Path, help="the file for the figures, as JSON; by default results/MODEL.json")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rounds-together", type=int, help="of several answers at once; as --rounds by default")
    parser.add_argument("--new", type=int, default=32, help="tokens to generate")
    parser.add_argument("--new-together", type=int, default=128, help="tokens of each of several answers at once")
    parser.add_argument("--group", default="128", help="group of activations of the raw engine; 32 is its default")
    parser.add_argument("--llama", help="folder with llama-bench")
    parser.add_argument("--gguf", help="the weights for llama.cpp")
    parser.add_argument("--together", type=int, nargs="*", default=TOGETHER)
    parser.add_argument("--prompts", type=int, nargs="*", default=PROMPTS)
    given = parser.parse_args()
    output = given.output or Path(__file__).with_name("results") / f"{Path(given.model).name}.json"
    for found in Comparison(given).run():
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

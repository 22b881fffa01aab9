"""One engine of the comparison, in a process of its own: ``_engines.py NAME JSON`` answers one JSON line for each.

A request has ``prompts`` (for each its text and its token ids), ``new`` (tokens to generate) and whether they are asked
``together``. The answer has, for each prompt, the seconds to the first token (``first_s``) and the tokens per second
after it (``rate``), and for all of them the tokens per second (``total_rate``) and the process tree's memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil


class Phi3:
    """This runtime, as an application uses it: text in, text out."""

    def __init__(self, model: str, device: str, **given: Any) -> None:
        import phi3_core as phi3

        self._model = phi3.load(model, device=device, **given)

    def answer(self, prompt: dict[str, Any], new: int) -> dict[str, Any]:
        # A model with random weights soon repeats itself, which prompt lookup would make too much of.
        reply = self._model.generate(prompt["text"], max_new_tokens=new, lookup="off")
        rate, count = reply.decode_tokens_per_s, reply.completion_tokens
        return {"first_s": reply.time_to_first_token_s, "rate": rate, "count": count}


class OpenVino:
    """openvino-genai's LLMPipeline."""

    def __init__(self, folder: str, properties: dict[str, Any]) -> None:
        import numpy as np
        import openvino
        import openvino_genai

        self._np, self._openvino, self._genai = np, openvino, openvino_genai
        self._pipeline = openvino_genai.LLMPipeline(folder, "CPU", **properties)

    def answer(self, prompt: dict[str, Any], new: int) -> dict[str, Any]:
        times: list[float] = []
        genai: Any = self._genai

        class Streamer(genai.StreamerBase):  # type: ignore[misc]
            def write(self, token: Any) -> Any:
                times.extend([time.perf_counter()] * (len(token) if isinstance(token, list) else 1))
                return genai.StreamingStatus.RUNNING

            def end(self) -> None:
                pass

        ids = self._np.array([prompt["ids"]], dtype="int64")
        inputs = genai.TokenizedInputs(self._openvino.Tensor(ids), self._openvino.Tensor(self._np.ones_like(ids)))
        started = time.perf_counter()
        self._pipeline.generate(inputs, _configuration(genai, prompt, new), Streamer())
        return _figures(started, times)


class OpenVinoBatched:
    """openvino-genai's ContinuousBatchingPipeline, which gets all prompts in one call."""

    def __init__(self, folder: str, properties: dict[str, Any]) -> None:
        import numpy as np
        import openvino
        import openvino_genai

        self._np, self._openvino, self._genai = np, openvino, openvino_genai
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = True
        scheduler.cache_size = 2
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", properties)
        self._number = 0

    def answer(self, prompt: dict[str, Any], new: int) -> dict[str, Any]:
        return self.answers([prompt], new)[0]

    def answers(self, prompts: list[dict[str, Any]], new: int) -> list[dict[str, Any]]:
        started = time.perf_counter()
        handles = []
        for prompt in prompts:
            self._number += 1
            ids = self._openvino.Tensor(self._np.array([prompt["ids"]], dtype="int64"))
            handles.append(self._pipeline.add_request(self._number, ids, _configuration(self._genai, prompt, new)))
        times: list[list[float]] = [[] for _ in handles]
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            now = time.perf_counter()
            for handle, seen in zip(handles, times, strict=True):
                while handle.can_read():
                    for output in handle.read().values():
                        seen.extend([now] * len(output.generated_ids))
        return [_figures(started, seen) for seen in times]


class OnnxRuntime:
    """onnxruntime-genai."""

    def __init__(self, folder: str) -> None:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime_genai

        self._genai = onnxruntime_genai
        self._model = onnxruntime_genai.Model(folder)

    def answer(self, prompt: dict[str, Any], new: int) -> dict[str, Any]:
        parameters = self._genai.GeneratorParams(self._model)
        parameters.set_search_options(max_length=len(prompt["ids"]) + new, do_sample=False)
        started = time.perf_counter()
        generator = self._genai.Generator(self._model, parameters)
        generator.append_tokens(prompt["ids"])
        times: list[float] = []
        while not generator.is_done() and len(times) < new:
            generator.generate_next_token()
            times.append(time.perf_counter())
        return _figures(started, times)


def _configuration(genai: Any, prompt: dict[str, Any], new: int) -> Any:
    configuration = genai.GenerationConfig()
    configuration.max_new_tokens, configuration.do_sample = new, False
    configuration.eos_token_id, configuration.stop_token_ids = prompt["stops"][0], set(prompt["stops"])
    return configuration


def _figures(started: float, times: list[float]) -> dict[str, Any]:
    rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else None
    return {"first_s": times[0] - started if times else None, "rate": rate, "count": len(times)}


def _answer_all(engine: Any, prompts: list[dict[str, Any]], new: int) -> list[dict[str, Any]]:
    """Answer all prompts together: with the engine's own batching, else from a thread for each."""
    if len(prompts) == 1:
        return [engine.answer(prompts[0], new)]
    if hasattr(engine, "answers"):
        return list(engine.answers(prompts, new))
    answers: list[dict[str, Any]] = [{} for _ in prompts]

    def ask(place: int) -> None:
        answers[place] = engine.answer(prompts[place], new)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _memory() -> int:
    """Memory of this process and its children in bytes, with mapped weights counted in each."""
    total = 0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def main() -> None:
    kind, given = sys.argv[1], json.loads(sys.argv[2])
    started = time.perf_counter()
    engines = {"phi3": Phi3, "openvino": OpenVino, "batched": OpenVinoBatched, "onnxruntime": OnnxRuntime}
    engine = engines[kind](**given)
    answers = sys.stdout
    sys.stdout = sys.stderr
    print(json.dumps({"loaded_s": time.perf_counter() - started}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        started = time.perf_counter()
        found = _answer_all(engine, request["prompts"], request["new"])
        took = time.perf_counter() - started
        total = sum(each["count"] for each in found) / took
        print(json.dumps({"answers": found, "total_rate": total, "memory": _memory()}), file=answers, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()

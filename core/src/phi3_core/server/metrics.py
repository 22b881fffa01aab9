"""``/metrics``: what the server has done, in the text format of Prometheus.

https://prometheus.io/docs/instrumenting/exposition_formats/ describes the format.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.responses import Response

from .openai import ERRORS

if TYPE_CHECKING:
    from .answering import Answering
    from .calls import Finished

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Histogram:
    """How often a time was at most so many seconds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS_S) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """Add a time."""
        self._counts[bisect_left(_BUCKETS_S, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str, labels: Mapping[str, object]) -> Iterator[str]:
        """Yield the lines of the text format."""
        total = 0
        for most, count in zip((*_BUCKETS_S, float("inf")), self._counts, strict=True):
            total += count
            bound = "+Inf" if most == float("inf") else f"{most:g}"
            yield _line(f"{name}_bucket", {**labels, "le": bound}, total)
        yield _line(f"{name}_sum", labels, self._sum)
        yield _line(f"{name}_count", labels, total)


class Metrics:
    """Counts requests and answers. For the thread of the server's event loop."""

    def __init__(self) -> None:
        self._started = time.time()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._durations: dict[str, Histogram] = {}
        self._prompt_tokens: Counter[str] = Counter()
        self._completion_tokens: Counter[str] = Counter()
        self._answers: Counter[tuple[str, str]] = Counter()
        self._first_tokens: dict[str, Histogram] = {}

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request; the status is 0 if the client has gone before there was one."""
        self._requests[path, status] += 1
        self._durations.setdefault(path, Histogram()).add(seconds)

    def count_answer(self, model: str, end: Finished) -> None:
        """Count an answer that was generated to its end."""
        self._answers[model, end.reason] += 1
        self._prompt_tokens[model] += end.usage.prompt_tokens
        self._completion_tokens[model] += end.usage.completion_tokens
        if end.time_to_first_token_s is not None:
            self._first_tokens.setdefault(model, Histogram()).add(end.time_to_first_token_s)

    def text(self, loaded: Iterable[tuple[str, str, int, int]]) -> str:
        """Return all figures.

        Args:
            loaded: of each loaded model its name, its device, and the numbers of running and waiting answers.
        """
        models = list(loaded)
        lines = [
            *_family("phi3_start_time_seconds", "gauge", "When the server was started", [({}, self._started)]),
            *_family(
                "phi3_requests_total",
                "counter",
                "Requests; the status is 0 if the client has gone",
                [({"path": path, "status": status}, count) for (path, status), count in self._requests.items()],
            ),
            *_histograms("phi3_request_seconds", "Duration of requests", "path", self._durations),
            *_family(
                "phi3_answers_total",
                "counter",
                "Answers that have ended",
                [({"model": model, "reason": reason}, count) for (model, reason), count in self._answers.items()],
            ),
            *_by_model("phi3_prompt_tokens_total", "Tokens of prompts", self._prompt_tokens),
            *_by_model("phi3_completion_tokens_total", "Tokens of answers", self._completion_tokens),
            *_histograms("phi3_time_to_first_token_seconds", "Time to the first token", "model", self._first_tokens),
        ]
        running = [({"model": name, "device": device}, count) for name, device, count, _ in models]
        waiting = [({"model": name, "device": device}, count) for name, device, _, count in models]
        lines += _family("phi3_running_answers", "gauge", "Answers being generated", running)
        lines += _family("phi3_waiting_answers", "gauge", "Answers waiting for their turn", waiting)
        return "\n".join([*lines, ""])


def _family(name: str, kind: str, meaning: str, values: Iterable[tuple[Mapping[str, object], float]]) -> Iterator[str]:
    yield from _head(name, kind, meaning)
    for labels, value in values:
        yield _line(name, labels, value)


def _by_model(name: str, meaning: str, values: Mapping[str, int]) -> Iterator[str]:
    return _family(name, "counter", meaning, [({"model": model}, count) for model, count in values.items()])


def _histograms(name: str, meaning: str, label: str, values: Mapping[str, Histogram]) -> Iterator[str]:
    yield from _head(name, "histogram", meaning)
    for key, histogram in values.items():
        yield from histogram.lines(name, {label: key})


def _head(name: str, kind: str, meaning: str) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"


def _line(name: str, labels: Mapping[str, object], value: float) -> str:
    shown = ",".join(f'{key}="{_escaped(str(text))}"' for key, text in labels.items())
    return f"{name}{{{shown}}} {value}" if shown else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def router(answering: Answering) -> APIRouter:
    """Return the route of the metrics."""
    routes = APIRouter()

    @routes.get("/metrics", response_class=Response, responses=ERRORS)
    async def read_metrics() -> Response:
        """Return the server's figures for Prometheus."""
        loaded = [
            (each.name, each.model.device, each.model.running, each.model.waiting) for each in answering.pool.loaded
        ]
        return Response(answering.metrics.text(loaded), media_type=CONTENT_TYPE)

    return routes

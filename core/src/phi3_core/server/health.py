"""``/health``: whether the engines answer, told by a token of their own."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from attrs import define, frozen
from fastapi import APIRouter
from starlette.responses import Response

from phi3_core import __version__
from phi3_core.config import time_limit
from phi3_core.errors import Phi3Error

from .openai import ERRORS
from .streaming import json_response

if TYPE_CHECKING:
    from .answering import Answering
    from .pool import LoadedModel

FRESH_S = 5.0
"""Seconds for which a token proves that the engine answers."""
PROBE_LIMIT_S = 10.0
"""Seconds that an idle engine has for a token."""


@frozen
class _Outcome:
    """What came of asking an engine for a token."""

    at: float
    seconds: float
    error: str | None = None


@define
class _Probe:
    """The latest outcome for one model, and the task that makes the next one."""

    outcome: _Outcome | None = None
    task: asyncio.Task[_Outcome] | None = None


class Health:
    """Finds out whether the engines answer.

    An engine that generates is judged by its latest token, and only an idle one is asked for a token, so the question
    never waits behind work. Many questions at once ask the engine once.
    """

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._probes: dict[LoadedModel, _Probe] = {}

    async def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether all is well, and the document that says it."""
        answering = self._answering
        loaded = answering.pool.loaded
        self._probes = {each: self._probes.get(each, _Probe()) for each in loaded}
        models = await asyncio.gather(*(self._about(each) for each in loaded))
        failed = any(each["state"] == "failed" for each in models)
        stopping = answering.lifetime.is_draining
        status = "stopping" if stopping else "failed" if failed else "ok"
        return status == "ok", {
            "status": status,
            "version": __version__,
            "uptime_s": round(time.time() - answering.lifetime.started, 1),
            "models": models,
        }

    async def _about(self, loaded: LoadedModel) -> dict[str, Any]:
        now, model = time.monotonic(), loaded.model
        age = now - loaded.last_token if loaded.last_token else None
        about: dict[str, Any] = {
            "model": loaded.name,
            "device": model.device,
            "precision": model.precision,
            "state": "ready",
            "running": model.running,
            "waiting": model.waiting,
            "last_token_age_s": None if age is None else round(age, 3),
            "probe_s": None,
            "error": None,
        }
        # A token proves nothing once its engine is gone; an idle model starts one again for the next.
        if age is not None and age < FRESH_S and (loaded.running or model.process is not None):
            return about | {"state": "busy" if loaded.running else "ready"}
        if loaded.running:
            # The engine is taken for hung, and replaced, after the same time limits.
            has_begun = loaded.last_token > loaded.begun
            silent, limit = now - max(loaded.last_token, loaded.begun), time_limit("token" if has_begun else "prefill")
            if silent < limit:
                return about | {"state": "busy"}
            return about | {"state": "failed", "error": f"no token for {silent:.0f} s"}
        outcome = await self._outcome(loaded)
        # Asking may have started an engine, and on another device.
        about |= {"device": model.device, "precision": model.precision}
        state = "ready" if outcome.error is None else "failed"
        return about | {"state": state, "probe_s": round(outcome.seconds, 4), "error": outcome.error}

    async def _outcome(self, loaded: LoadedModel) -> _Outcome:
        """Return what came of asking for a token, now or within the last seconds."""
        probe = self._probes[loaded]
        latest = probe.outcome
        if latest is not None and time.monotonic() - latest.at < FRESH_S and (latest.error or loaded.model.process):
            return latest
        if probe.task is None or probe.task.done():
            probe.task = asyncio.ensure_future(self._ask(loaded))
        started = time.monotonic()
        done, _ = await asyncio.wait({probe.task}, timeout=PROBE_LIMIT_S)
        if not done:  # the task goes on, and the next question takes its outcome
            return _Outcome(started, PROBE_LIMIT_S, f"no token within {PROBE_LIMIT_S:g} s")
        probe.outcome = probe.task.result()
        return probe.outcome

    async def _ask(self, loaded: LoadedModel) -> _Outcome:
        started = time.monotonic()
        error = None
        try:
            await self._answering.probe(loaded)
        except Phi3Error as failure:
            error = failure.message
        ended = time.monotonic()
        return _Outcome(ended, ended - started, error)


def router(answering: Answering) -> APIRouter:
    """Return the route of the server's health."""
    routes, health = APIRouter(), Health(answering)

    @routes.get("/health", response_class=Response, responses=ERRORS)
    async def read_health() -> Response:
        """Say whether the engines answer; with the status 503 if not."""
        is_well, document = await health.report()
        response = json_response(document)
        response.status_code = 200 if is_well else 503
        return response

    return routes

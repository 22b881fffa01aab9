"""``/health`` and ``/metrics`` tell what is so."""

from __future__ import annotations

import contextlib
import json
import re

import psutil
import pytest
from batching import wait_until
from phi3_core.server import app
from phi3_core.server.offers import Offers
from phi3_core.server.pool import ModelPool
from phi3_core.server.settings import ServerSettings
from phi3_core.store.store import Store
from serving_toy import running

MUTE = """
@hookimpl
def generate(engine, request):
    if os.path.exists(LOG + ".mute"):
        raise RuntimeError("lost for good")
    yield request.prompt_ids[1]
"""


@pytest.fixture
def idle(place):
    """A server that has not been asked for anything, with a backend that can be made to fail."""
    site, log = place / "site", place / "idle-log"
    module = site / "phi3_chorus.py"
    whole = module.read_text(encoding="utf-8")
    module.write_text(whole + MUTE.replace("LOG", repr(str(log))), encoding="utf-8")
    try:
        with running(str(place / "tiny"), log) as found:
            yield found, log
    finally:
        module.write_text(whole, encoding="utf-8")


@contextlib.contextmanager
def muted(log):
    """Let the backend of ``idle`` fail."""
    file = log.parent / f"{log.name}.mute"
    file.touch()
    try:
        yield
    finally:
        file.unlink()


def test_an_idle_engine_is_asked_for_a_token(idle):
    server, _ = idle
    status, found = server.ask("GET", "/health")
    assert (status, found["status"]) == (200, "ok")
    [model] = found["models"]
    assert (model["state"], model["device"], model["error"]) == ("ready", "chorus:CPU", None)
    assert model["probe_s"] > 0
    assert server.ask("GET", "/health")[1]["models"][0]["probe_s"] == model["probe_s"]  # not asked again


def test_an_engine_that_fails_is_told(idle):
    server, log = idle
    with muted(log):
        status, found = server.ask("GET", "/health")
        assert (status, found["status"]) == (503, "failed")
        assert found["models"][0]["state"] == "failed"
        assert "lost for good" in found["models"][0]["error"]


def test_an_engine_that_was_killed_is_replaced(idle):
    server, _ = idle
    workers = [each for each in psutil.Process().children() if "phi3_core.worker" in " ".join(each.cmdline())]
    newest = max(workers, key=lambda each: each.create_time())
    newest.kill()
    wait_until(lambda: not newest.is_running() or newest.status() == psutil.STATUS_ZOMBIE)
    status, found = server.ask("GET", "/health")
    assert (status, found["models"][0]["state"]) == (200, "ready")


def test_an_engine_whose_device_failed_is_asked_anew(idle):
    server, log = idle
    assert server.models()[0]["device"] == "chorus:CPU"
    with muted(log):
        assert server.chat()[0] == 500
    (found,) = server.models()
    assert (found["state"], found["device"]) == ("ready", "chorus:CPU")
    assert found["probe_s"] is not None


def test_metrics_can_be_read_by_prometheus(server):
    server.chat("Hello world", max_tokens=3)
    response = server.send("GET", "/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = response.read().decode()
    families = set(re.findall(r"^# TYPE (\w+) (?:counter|gauge|histogram)$", text, re.MULTILINE))
    sample = re.compile(r'(\w+?)(?:_bucket|_sum|_count)?(?:\{(?:\w+="[^"]*",?)*\})? [0-9.e+-]+')
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for line in lines:
        found = sample.fullmatch(line)
        assert found, line
        assert found[1] in families or line.split("{")[0] in families, line
    values = dict(line.rsplit(" ", 1) for line in lines)
    assert float(values['phi3_completion_tokens_total{model="tiny"}']) >= 3
    assert float(values['phi3_running_answers{model="tiny",device="chorus:CPU"}']) == 0
    answers = 'phi3_time_to_first_token_seconds_bucket{model="tiny",le="+Inf"}'
    assert values[answers] == values['phi3_time_to_first_token_seconds_count{model="tiny"}']


def test_unknown_paths_are_counted_as_one(server):
    server.ask("GET", "/secret/a")
    server.ask("GET", "/secret/b")
    assert "secret" not in server.send("GET", "/metrics").read().decode()


def test_the_list_of_models_says_what_is_loaded(server):
    _, found = server.ask("GET", "/v1/models")
    [model] = [each for each in found["data"] if each["id"] == "tiny"]
    about = {"loaded": True, "device": "chorus:CPU", "kind": "cpu", "precision": "fp16", "context_length": 4096}
    about |= {"capabilities": ["json_schema"], "store_name": model["phi3"]["store_name"]}
    assert model["phi3"] == about
    assert model["phi3"]["store_name"].startswith("tiny-")
    assert server.ask("GET", "/v1/models/tiny") == (200, model)


def test_nothing_of_a_request_goes_to_telemetry(monkeypatch):
    """FastAPI has OpenTelemetry built in, which records requests with their bodies and may export them."""
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    settings = ServerSettings(models=("tiny",))
    made = app.make_app(settings, ModelPool(Offers((), Store()), lambda _: None))
    assert not any(vars(made).get("_telemetry", {}).values())


def test_the_servers_description_names_every_route(server):
    status, found = server.ask("GET", "/openapi.json")
    assert status == 200
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics"} <= set(found["paths"])
    assert "422" not in json.dumps(found["paths"])

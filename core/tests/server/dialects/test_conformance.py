"""The conformance suite llm-comply, which checks documents and streams against the interfaces' own descriptions."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

if importlib.util.find_spec("llm_comply") is None:
    pytest.skip("needs the package llm-comply", allow_module_level=True)

CALL = '[{"name": "get_weather", "arguments": {"location": "San Francisco"}}]'
FORMATS = {
    # What fails is refused by name: the models read no images. What is skipped is for models that reason apart.
    "open-responses": ({"image-input"}, {"reasoning-summary"}),
    "openai-chat": ({"chat-image-input"}, {"chat-reasoning-summary"}),
    "anthropic": ({"anth-image-input"}, {"anth-thinking-display"}),
}
WARNED = {"open-responses": {"compact-response"}}  # there is no /v1/responses/compact


@pytest.mark.parametrize("name", FORMATS)
def test_every_test_passes_that_applies(address, script, name):
    script.begin("One two three.", guided=CALL)
    asked = ("--base-url", f"{address}/v1", "--api-key", "none", "--model", "m", "--format", name, "--json")
    command = [sys.executable, "-m", "llm_comply.cli", "run", *asked]
    done = subprocess.run(command, capture_output=True, check=False, encoding="utf-8", timeout=120)
    results = json.loads(done.stdout)["results"]
    errors = {each["id"]: each["errors"] for each in results if each["status"] == "failed"}
    failing, skipped = FORMATS[name]
    assert set(errors) == failing, errors
    assert [each[0] for each in errors.values()] == ["HTTP 400 (expected [200])"]
    assert {each["id"] for each in results if each["status"] == "skipped"} == skipped
    warned = {each["id"]: each["warnings"] for each in results if each.get("warnings")}
    assert warned.keys() == WARNED.get(name, set()), warned
    assert len([each for each in results if each["status"] == "passed"]) == len(results) - 2 > 5

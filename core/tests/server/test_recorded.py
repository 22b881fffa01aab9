"""What clients send that were tried with ``phi3 launch`` is accepted, and answered in the form that they ask for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from serving_toy import events

RECORDED = sorted(Path(__file__).with_name("recorded").glob("*.json"))


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_what_a_client_sends_is_answered(server, file):
    for asked in json.loads(file.read_text(encoding="utf-8")):
        body = asked["body"] and json.dumps({**asked["body"], "model": "tiny"}).encode()
        response = server.send(asked["method"], asked["path"], body, **asked["headers"])
        assert response.status == 200, response.read()
        if body is None:
            assert "tiny" in [each["id"] for each in json.loads(response.read())["data"]]
            continue
        chunks = list(events(response))
        assert "".join(each["delta"].get("content", "") for chunk in chunks for each in chunk["choices"]).strip()
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
        has_usage = asked["body"].get("stream_options", {}).get("include_usage", False)
        assert ("usage" in chunks[-1] and chunks[-1]["choices"] == []) == has_usage

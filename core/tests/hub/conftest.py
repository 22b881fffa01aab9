"""The stand-in hub for the tests of this folder: a server, what it offers, and an environment without settings."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
from phi3_core.hub import client
from stand_in_hub import HubServer
from stand_in_hub.support import REPOSITORY, UNWANTED, checkpoint


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's own settings, and pauses that nobody notices."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # It reads its settings when it is imported: before a test changes them, whichever test comes first.
    constants = importlib.import_module("huggingface_hub.constants")
    # On Windows it warns that it cannot make links.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS_WARNING", True)
    monkeypatch.setattr(client, "BACKOFF_S", 0.01)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    server = HubServer()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.stop()


@pytest.fixture
def commit(server) -> str:
    return server.add(REPOSITORY, checkpoint() | UNWANTED)

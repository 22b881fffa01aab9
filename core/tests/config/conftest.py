"""What the tests of the configuration share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from phi3_core.config import file


@pytest.fixture
def configure(tmp_path, monkeypatch) -> Callable[[bytes | str], Path]:
    """Writes the configuration file of this test, and returns its path."""
    path = tmp_path / "settings" / "config.toml"
    path.parent.mkdir()
    monkeypatch.setenv("PHI3_CONFIG", str(path))

    def write(content):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        file.forget()
        return path

    return write


@pytest.fixture
def parrot(plugins, source, monkeypatch) -> Iterator[str]:
    """The path of a model for a backend that repeats the prompt; nothing is on standard input."""
    monkeypatch.chdir(plugins.site)
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        yield Path(source).as_posix()

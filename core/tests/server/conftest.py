"""A server with a toy backend, shared by the tests of this folder."""

from __future__ import annotations

import json
import shutil

import pytest
from serving_toy import chorus, running


@pytest.fixture(scope="package")
def place(plugins_at, phi3_folder, tmp_path_factory):
    """A folder with original weights, as far as a parrot cares, a store, and the toy backend installed."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "site").mkdir()
    shutil.copytree(phi3_folder, folder / "tiny")
    config = {"model_type": "phi3", "vocab_size": 32064}
    (folder / "tiny" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tiny" / "model.safetensors").write_bytes(b"\0" * 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3_HOME", str(folder / "home"))
        patch.setenv("PHI3_CONFIG", "none")
        patch.syspath_prepend(str(folder / "site"))
        patch.setenv("PYTHONPATH", str(folder / "site"))
        plugins_at(folder / "site").add("chorus", changes=chorus(folder / "log"))
        yield folder


@pytest.fixture(scope="package")
def server(place):
    with running(str(place / "tiny"), place / "log", max_waiting=2, defaults={"max_new_tokens": 5}) as found:
        yield found

"""A server with a toy backend, shared by the tests of this folder."""

from __future__ import annotations

import pytest
from serving_toy import chorus, running


@pytest.fixture(scope="package")
def place(plugins_at, write_source, tmp_path_factory):
    """A folder with original weights, as far as a parrot cares, a store, and the toy backend installed."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "site").mkdir()
    write_source(folder / "tiny")
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

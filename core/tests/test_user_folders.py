"""Users without a home folder, as a container may have: a number that the system has no account for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from phi3_core import paths, user_folders
from phi3_core.config import file
from phi3_core.errors import UsageError
from phi3_core.remote import clients
from phi3_core.toolchains import install

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows knows the folders without variables")


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """The user has no account, and no variable names a folder."""
    import pwd

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "PHI3_HOME", "PHI3_CONFIG", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "LLM_USER_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_there_are_folders_for_a_user_who_has_a_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert user_folders.home_folder() == tmp_path
    for folder in (user_folders.config_folder("phi3"), user_folders.cache_folder("phi3")):
        assert tmp_path in folder.parents
        assert folder.name == "phi3"


@pytest.mark.parametrize("home", [None, "here"])
def test_none_without_a_home(homeless, monkeypatch, home):
    if home is not None:
        monkeypatch.setenv("HOME", home)
    assert user_folders.cache_folder("phi3") is None
    assert user_folders.config_folder("phi3") is None
    assert user_folders.home_folder() is None


def test_there_is_no_configuration_file_then(homeless):
    assert file.location() is None
    assert file.content() == {}


def test_a_store_has_to_be_named_then(homeless, run_main, monkeypatch, tmp_path):
    with pytest.raises(UsageError, match="no home folder"):
        paths.home()
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        for command in (("devices",), ("doctor",), ("models", "list"), ("run", "-m", "sample", "Hi"), ("config",)):
            code, _, err = run_main(*command)
            assert "unexpected" not in err
            assert (code, "PHI3_HOME" in err) in {(2, True), (0, False)}, (command, err)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_named_is_enough(homeless, plugins, run_main):
    plugins.add("parrot")
    code, out, err = run_main("devices")
    assert code == 0, err
    assert "parrot:CPU" in out


def test_pip_s_other_settings_are_seen_then(homeless, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    (tmp_path / "pip.conf").touch()
    assert install._pip_is_configured()


@pytest.mark.parametrize("make", [clients.continue_dev, clients.llm])
def test_clients_that_keep_settings_there_are_refused(homeless, make):
    target = clients.Target(address="http://127.0.0.1:1", model="sample", key=None)
    with pytest.raises(UsageError, match="no home folder"):
        make(target)

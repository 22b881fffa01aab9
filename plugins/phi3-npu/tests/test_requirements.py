"""Why the library cannot be used, whatever the hardware, told from what is installed."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from phi3_core.values import Machine
from phi3_npu import requirements

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = None

GIB = 1 << 30
WINDOWS = Machine(os="windows", architecture="x86_64", memory_bytes=16 * GIB)
LINUX = Machine(os="linux", architecture="x86_64", memory_bytes=16 * GIB)
WORKING = {
    "intel-npu-acceleration-library": "1.4.0",
    "torch": "2.13.0+cpu",
    "transformers": "5.23.0",
    "safetensors": "0.8.0",
}


@pytest.fixture
def installed(monkeypatch):
    """What is installed, to be changed by the test."""
    versions = dict(WORKING)

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(requirements, "version", version)
    return versions


@pytest.mark.parametrize("machine", [WINDOWS, LINUX])
@pytest.mark.parametrize("python", [(3, 10), (3, 11), (3, 12)])
def test_nothing_stands_in_the_way(installed, machine, python):
    assert requirements.missing(machine, python) is None


@pytest.mark.parametrize(("system", "architecture"), [("macos", "arm64"), ("windows", "arm64"), ("linux", "aarch64")])
def test_other_machines_are_sent_elsewhere(installed, system, architecture):
    refusal = requirements.missing(Machine(os=system, architecture=architecture, memory_bytes=GIB), (3, 12))
    assert f"not for {system} on {architecture}" in refusal.reason
    assert refusal.remedy == "pip install phi3-openvino"


def test_python_3_13_is_told_where_the_library_ends(installed):
    refusal = requirements.missing(WINDOWS, (3, 13))
    assert refusal.reason == "Intel's NPU library ends at Python 3.12, and this is 3.13"
    assert "Python 3.12" in refusal.remedy


@pytest.mark.parametrize(
    ("machine", "name", "version", "reason", "remedy"),
    [
        (WINDOWS, "intel-npu-acceleration-library", None, "is not installed", "pip install intel-npu-accel"),
        (LINUX, "intel-npu-acceleration-library", None, "is not installed", "build its wheel"),
        (WINDOWS, "intel-npu-acceleration-library", "1.3.0", "is 1.3.0, not", "==1.4.0"),
        (LINUX, "torch", None, "torch is not installed", 'pip install "torch>=2.5"'),
        (LINUX, "torch", "2.4.1", "torch is 2.4.1", 'pip install "torch>=2.5"'),
        (LINUX, "transformers", "4.48.3", "transformers is 4.48.3", 'pip install "transformers>=4.49,<6"'),
        (LINUX, "transformers", "6.0.0", "transformers is 6.0.0", 'pip install "transformers>=4.49,<6"'),
        (LINUX, "safetensors", None, "safetensors is not installed", 'pip install "safetensors>='),
    ],
)
def test_what_is_missing_comes_with_a_remedy(installed, machine, name, version, reason, remedy):
    installed.pop(name)
    if version is not None:
        installed[name] = version
    refusal = requirements.missing(machine, (3, 12))
    assert reason in refusal.reason
    assert remedy in refusal.remedy


@pytest.mark.skipif(tomllib is None, reason="needs Python 3.11 to read TOML")
def test_what_is_declared_is_what_is_asked_for_at_run_time():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [Requirement(text) for text in project["dependencies"]]

    def on(python, system, machine):
        environment = {"python_version": python, "sys_platform": system, "platform_machine": machine}
        return {
            each.name: str(each.specifier)
            for each in declared
            if each.marker is None or each.marker.evaluate(environment)
        }

    windows, linux = on("3.12", "win32", "AMD64"), on("3.12", "linux", "x86_64")
    wanted = f"=={requirements.LIBRARY_VERSION}"
    assert windows[requirements.LIBRARY] == wanted
    assert requirements.LIBRARY not in linux
    for needed in requirements.NEEDED:
        for found in (windows, linux):
            assert set(found[needed.name].split(",")) == set(needed.words.removeprefix(needed.name).split(","))
    for elsewhere in (on("3.13", "win32", "AMD64"), on("3.12", "darwin", "arm64"), on("3.12", "win32", "ARM64")):
        assert not {requirements.LIBRARY, "torch", "transformers"} & set(elsewhere)

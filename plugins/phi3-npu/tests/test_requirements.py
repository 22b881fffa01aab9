"""Why the library cannot be used, whatever the hardware, told from what is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from phi3_core.values import Machine
from phi3_npu import requirements

GIB = 1 << 30
WINDOWS = Machine(os="windows", architecture="x86_64", memory_bytes=16 * GIB)
LINUX = Machine(os="linux", architecture="x86_64", memory_bytes=16 * GIB)
WORKING = {
    "intel-npu-acceleration-library": "1.4.0",
    "torch": "2.13.0+cpu",
    "transformers": "5.23.0",
    "safetensors": "0.8.0",
}


class Folder:
    """A folder with the metadata of what is installed."""

    def __init__(self, path):
        self.path = path
        for name, version in WORKING.items():
            self.install(name, version)

    def install(self, name, version, form="{name}-{version}.dist-info/METADATA"):
        file = self.path / form.format(name=name.replace("-", "_"), version=version)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")

    def uninstall(self, name):
        (folder,) = self.path.glob(f"{name.replace('-', '_')}-*")
        shutil.rmtree(folder)

    def missing(self, machine, python=(3, 12), before=()):
        return requirements.missing(machine, python, [*map(str, before), str(self.path)])


@pytest.fixture
def installed(tmp_path):
    return Folder(tmp_path / "site-packages")


@pytest.mark.parametrize("machine", [WINDOWS, LINUX])
@pytest.mark.parametrize("python", [(3, 10), (3, 11), (3, 12)])
def test_nothing_stands_in_the_way(installed, machine, python):
    assert installed.missing(machine, python) is None


@pytest.mark.parametrize(
    "form", ["{name}-{version}-py3.12.egg-info/PKG-INFO", "{name}.egg-info/PKG-INFO", "{name}-{version}.egg-info"]
)
def test_what_older_tools_and_linux_distributions_install_is_found(installed, form):
    installed.uninstall("torch")
    installed.install("torch", "2.4.1", form)
    assert installed.missing(LINUX).reason == "torch is 2.4.1"


def test_of_two_the_first_on_the_path_counts(installed, tmp_path):
    first = Folder(tmp_path / "first")
    first.uninstall("torch")
    first.install("torch", "2.4.1")
    assert installed.missing(LINUX, before=[tmp_path / "nowhere", __file__, first.path]).reason == "torch is 2.4.1"


@pytest.mark.parametrize(("system", "architecture"), [("macos", "arm64"), ("windows", "arm64"), ("linux", "aarch64")])
def test_other_machines_are_sent_elsewhere(installed, system, architecture):
    refusal = installed.missing(Machine(os=system, architecture=architecture, memory_bytes=GIB))
    assert f"not for {system} on {architecture}" in refusal.reason
    assert refusal.remedy == "pip install phi3-openvino"


def test_python_3_13_is_told_where_the_library_ends(installed):
    refusal = installed.missing(WINDOWS, (3, 13))
    assert refusal.reason == "Intel's NPU library ends at Python 3.12, and this is 3.13; phi3-openvino drives NPUs too"
    assert refusal.remedy == "pip install phi3-openvino"


@pytest.mark.parametrize(
    ("machine", "name", "version", "reason", "remedy"),
    [
        (WINDOWS, "intel-npu-acceleration-library", None, "is not installed", "pip install intel-npu-accel"),
        (LINUX, "intel-npu-acceleration-library", None, "is not installed", "build its wheel"),
        (WINDOWS, "intel-npu-acceleration-library", "1.3.0", "is 1.3.0, not", "==1.4.0"),
        (LINUX, "torch", None, "torch is not installed", 'pip install "torch>=2.6"'),
        (LINUX, "torch", "2.5.1", "torch is 2.5.1", 'pip install "torch>=2.6"'),
        (LINUX, "transformers", "4.48.3", "transformers is 4.48.3", 'pip install "transformers>=4.49,<6"'),
        (LINUX, "transformers", "6.0.0", "transformers is 6.0.0", 'pip install "transformers>=4.49,<6"'),
        (LINUX, "safetensors", None, "safetensors is not installed", 'pip install "safetensors>='),
    ],
)
def test_what_is_missing_comes_with_a_remedy(installed, machine, name, version, reason, remedy):
    installed.uninstall(name)
    if version is not None:
        installed.install(name, version)
    refusal = installed.missing(machine)
    assert reason in refusal.reason
    assert remedy in refusal.remedy


def test_what_is_declared_is_what_is_asked_for_at_run_time():
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11 to read TOML")
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
    for needed in map(Requirement, requirements.NEEDED):
        for found in (windows, linux):
            assert set(found[needed.name].split(",")) == set(str(needed.specifier).split(","))
    for elsewhere in (on("3.13", "win32", "AMD64"), on("3.12", "darwin", "arm64"), on("3.12", "win32", "ARM64")):
        assert not {requirements.LIBRARY, "torch", "transformers"} & set(elsewhere)

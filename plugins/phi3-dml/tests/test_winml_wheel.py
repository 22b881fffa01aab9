"""Windows ML's wheels for x64 and ARM64, looked into without running them: what the plugin uses is there."""

from __future__ import annotations

import ast
import functools
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from phi3_dml import catalogue, flavours

pytestmark = pytest.mark.slow

NEEDED = Requirement(flavours.WINDOWSML.strip('"'))
RUNTIME = "onnxruntime-windowsml==1.27.1.202607110137"
"""What the extra ``with-ort`` of windowsml requires."""
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


@pytest.fixture(scope="module", params=["win_amd64", "win_arm64"])
def platform(request):
    return request.param


@pytest.fixture
def download(windows_wheel, platform):
    return functools.partial(windows_wheel, platform=platform)


def required(wheel):
    """The requirements in a wheel's metadata."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(archive.read(name).decode("utf-8"))
    return [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]


def libraries(wheel):
    """The names of a wheel's libraries."""
    with zipfile.ZipFile(wheel) as archive:
        return {Path(name).name for name in archive.namelist() if name.endswith(".dll")}


@pytest.mark.parametrize("python", PYTHONS)
def test_there_is_a_wheel_for_each_supported_python(download, platform, python):
    """As ``test_no_extra_brings_a_second_flavour`` and the remedies suppose."""
    tag = f"cp{python.replace('.', '')}"
    assert download(flavours.WINML, python=python).name.endswith(f"-{tag}-{tag}-{platform}.whl")
    assert download(RUNTIME, python=python).name.endswith(f"-{tag}-{tag}-{platform}.whl")


def test_its_metadata_asks_for_numpy_alone_and_its_code_for_onnxruntime(download):
    wheel = download(flavours.WINML)
    assert [str(one) for one in required(wheel)] == ["numpy>=1.21.6"]
    with zipfile.ZipFile(wheel) as archive:
        loader = archive.read("onnxruntime_genai/_dll_directory.py").decode("utf-8")
        package = archive.read("onnxruntime_genai/__init__.py").decode("utf-8")
    assert 'GetModuleHandleW("onnxruntime.dll")' in loader
    assert 'find_spec("onnxruntime")' in loader
    assert '__id__ = "onnxruntime-genai-winml"' in package
    assert '__version__ = "0.18.0"' in package


def test_the_wheel_for_arm64_brings_no_onnxruntime(download, platform):
    brought = {"onnxruntime.dll", "DirectML.dll", "Microsoft.Windows.AI.MachineLearning.dll"}
    assert libraries(download(flavours.WINML)) & brought == (brought if platform == "win_amd64" else set())


def test_what_the_extra_adds_brings_onnxruntime_with_directml(download):
    """windowsml has no compiled module, so one wheel is for all versions of Python."""
    wheel = download(str(NEEDED))
    (needed,) = required(wheel)
    assert f"{needed.name}{needed.specifier}" == RUNTIME
    assert needed.marker.evaluate({"extra": "with-ort"})
    assert not needed.marker.evaluate({"extra": ""})
    runtime = download(RUNTIME)
    assert {"onnxruntime.dll", "DirectML.dll"} <= libraries(runtime)
    with zipfile.ZipFile(runtime) as archive:
        assert b"DmlExecutionProvider" in archive.read("onnxruntime/capi/onnxruntime.dll")


def test_every_attribute_is_in_the_windows_wheel(download, runtime_attributes):
    names = runtime_attributes
    assert {"Config", "Model", "Generator", "append_tokens", "register_execution_provider_library"} <= names
    with zipfile.ZipFile(download(flavours.WINML)) as archive:
        (module,) = [name for name in archive.namelist() if name.endswith(".pyd")]
        content = archive.read(module)
    # pybind11 keeps the names of what it defines as plain text, each ended by a zero.
    assert sorted(name for name in names if name.encode() + b"\0" not in content) == []


def test_the_search_options_and_the_device_are_in_the_windows_library(download):
    with zipfile.ZipFile(download(flavours.WINML)) as archive:
        content = archive.read("onnxruntime_genai/onnxruntime-genai.dll")
    # Short texts lie in the code itself, four or eight letters at a time.
    for word in ("past_present_share_buffer", "repetition_penalty", "DirectML.dll"):
        assert word.encode() in content
    assert b"Continuous decoding is not supported on the selected device type" in content


def test_every_attribute_of_the_catalogue_is_in_windowsml(download, attributes):
    with zipfile.ZipFile(download(str(NEEDED))) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("windowsml/__init__.py")]
        tree = ast.parse(archive.read(name))
        (bindings,) = [name for name in archive.namelist() if name.endswith("windowsml/_bindings.py")]
        states = ast.parse(archive.read(bindings))
    classes = {node.name: node for tree in (tree, states) for node in tree.body if isinstance(node, ast.ClassDef)}
    methods = {
        name: {node.name for node in classes[name].body if isinstance(node, ast.FunctionDef)}
        for name in ("EpCatalog", "ExecutionProvider")
    }
    assert {"__enter__", "__exit__", "find_all_providers"} <= methods["EpCatalog"]
    names = attributes({"provider", "opened"}, ["catalogue.py"])
    assert {"name", "version", "package_family_name", "library_path", "ready_state", "ensure_ready"} <= names
    assert names <= methods["ExecutionProvider"] | methods["EpCatalog"]
    members = [ast.unparse(node.targets[0]) for node in classes["EpReadyState"].body if isinstance(node, ast.Assign)]
    assert members == ["Ready", "NotReady", catalogue.NOT_PRESENT]

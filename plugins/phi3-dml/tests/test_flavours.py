"""Flavours of ONNX Runtime in an environment, from metadata alone."""

from __future__ import annotations

from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement
from phi3_dml import flavours
from phi3_dml.flavours import DIRECTML, WINDOWSML, WINML, Flavours, Installed


@pytest.fixture
def install(tmp_path):
    """Make metadata of distributions, and look at it."""

    def install(*names):
        for each in names:
            name, _, version = each.partition("==")
            info = tmp_path / f"{name.replace('-', '_')}-{version or '1.0'}.dist-info"
            info.mkdir()
            text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version or '1.0'}\n"
            (info / "METADATA").write_text(text, encoding="utf-8")
        return flavours.installed([str(tmp_path)])

    return install


@pytest.mark.parametrize(
    ("names", "flavour"),
    [
        (["onnxruntime-genai-directml==0.13.1", "onnxruntime-directml==1.24.4"], "directml"),
        (["onnxruntime_genai_DirectML==0.13.1", "onnxruntime.directml==1.24.4"], "directml"),
        (["onnxruntime-genai", "onnxruntime"], "cpu"),
        (["onnxruntime-genai-cuda", "onnxruntime-gpu"], "cuda"),
        (["onnxruntime-genai-winml==0.18.0", "onnxruntime-windowsml==1.27.1.202607110137", "windowsml"], "winml"),
        (["onnxruntime"], None),
        ([], None),
    ],
)
def test_the_flavour(install, names, flavour):
    found = install(*names)
    assert found.conflicts() == ()
    assert found.flavour == flavour
    assert (found.version is None) == (flavour is None)


@pytest.mark.parametrize(
    ("names", "message", "commands"),
    [
        (
            ["onnxruntime-genai-directml==0.13.1", "onnxruntime-genai==0.18.0", "onnxruntime", "onnxruntime-directml"],
            (
                "onnxruntime-genai 0.18.0 and onnxruntime-genai-directml 0.13.1 are both installed and overwrite each "
                "other's files in onnxruntime_genai"
            ),
            (
                "pip uninstall -y onnxruntime-genai-directml onnxruntime-genai onnxruntime onnxruntime-directml",
                "pip install onnxruntime-genai-directml==0.13.1",
            ),
        ),
        (
            ["onnxruntime-genai-directml==0.13.1", "onnxruntime==1.32.0", "onnxruntime-directml==1.24.4"],
            (
                "onnxruntime 1.32.0 and onnxruntime-directml 1.24.4 are both installed and overwrite each other's "
                "files in onnxruntime"
            ),
            (
                "pip uninstall -y onnxruntime-genai-directml onnxruntime onnxruntime-directml",
                "pip install onnxruntime-genai-directml==0.13.1",
            ),
        ),
        (
            ["onnxruntime-genai==0.18.0", "onnxruntime-gpu==1.30.0"],
            "onnxruntime-genai 0.18.0 needs onnxruntime, but onnxruntime-gpu is installed",
            ("pip uninstall -y onnxruntime-genai onnxruntime-gpu", "pip install onnxruntime-genai==0.18.0"),
        ),
        (
            ["onnxruntime-genai-directml==0.13.1", "onnxruntime-directml==1.24.4", "onnxruntime-genai-winml==0.18.0"],
            (
                "onnxruntime-genai-directml 0.13.1 and onnxruntime-genai-winml 0.18.0 are both installed and overwrite "
                "each other's files in onnxruntime_genai"
            ),
            (
                "pip uninstall -y onnxruntime-genai-directml onnxruntime-genai-winml onnxruntime-directml",
                "pip install onnxruntime-genai-directml==0.13.1",
            ),
        ),
        (
            ["onnxruntime-genai-winml==0.18.0", "onnxruntime==1.32.0", "onnxruntime-windowsml==1.27.1", "windowsml"],
            (
                "onnxruntime 1.32.0 and onnxruntime-windowsml 1.27.1 are both installed and overwrite each other's "
                "files in onnxruntime"
            ),
            (
                "pip uninstall -y onnxruntime-genai-winml onnxruntime onnxruntime-windowsml",
                'pip install onnxruntime-genai-winml==0.18.0 "windowsml[with-ort]==2.4.89"',
            ),
        ),
        (
            ["onnxruntime-genai-winml==0.18.0", "windowsml==2.4.89"],
            "onnxruntime-genai-winml 0.18.0 is installed without onnxruntime-windowsml",
            ('pip install "windowsml[with-ort]==2.4.89"',),
        ),
        (
            ["onnxruntime-genai==0.18.0"],
            "onnxruntime-genai 0.18.0 is installed without onnxruntime",
            ("pip install --force-reinstall onnxruntime-genai==0.18.0",),
        ),
    ],
)
def test_what_cannot_live_together_is_named_with_what_mends_it(install, names, message, commands):
    found = install(*names)
    (conflict,) = found.conflicts()
    assert conflict.message == message
    assert conflict.commands == commands
    assert conflict.remedy == ", then ".join(commands)
    assert found.flavour is None


def requirements(extra, machine, python):
    """Names of what phi3-dml requires on Windows, with an extra."""
    environment = {"sys_platform": "win32", "platform_machine": machine, "python_version": python, "extra": extra}
    parsed = map(Requirement, requires("phi3-dml"))
    return {one.name: one for one in parsed if one.marker is None or one.marker.evaluate(environment)}


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14", "3.15"])
@pytest.mark.parametrize("machine", ["AMD64", "ARM64"])
def test_no_extra_brings_a_second_flavour(machine, python):
    """An extra only adds to what is required anyway: whatever is added, there is one flavour at most."""
    directml = machine == "AMD64" and "3.11" <= python <= "3.14"
    for extra, flavour in {"": None, "cpu": "onnxruntime-genai", "winml": "onnxruntime-genai-winml"}.items():
        found = [name for name in requirements(extra, machine, python) if name.startswith("onnxruntime-genai")]
        wanted = "onnxruntime-genai-directml" if directml else flavour if python > "3.10" else None
        assert found == ([wanted] if wanted else [])


def test_what_remedies_name_is_what_the_distribution_requires():
    directml, winml, windowsml = (Requirement(text.strip('"')) for text in (DIRECTML, WINML, WINDOWSML))
    required = {**requirements("winml", "ARM64", "3.13"), **requirements("", "AMD64", "3.13")}
    for pinned in (directml, winml, windowsml):
        (version,) = [part.version for part in pinned.specifier]
        assert required[pinned.name].specifier.contains(version)
        assert required[pinned.name].extras == pinned.extras


def test_this_environment_is_read_without_importing_anything():
    import subprocess
    import sys

    code = "import sys; from phi3_dml import flavours; flavours.installed(); print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert all(isinstance(one, Installed) for one in flavours.installed().runtimes)
    assert Flavours().flavour is None

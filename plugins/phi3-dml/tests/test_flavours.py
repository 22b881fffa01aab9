"""Flavours of ONNX Runtime in an environment, from metadata alone."""

from __future__ import annotations

import pytest
from phi3_dml import flavours
from phi3_dml.flavours import Flavours, Installed


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
        (["onnxruntime-genai-winml"], "winml"),
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


def test_this_environment_is_read_without_importing_anything():
    import subprocess
    import sys

    code = "import sys; from phi3_dml import flavours; flavours.installed(); print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert all(isinstance(one, Installed) for one in flavours.installed().runtimes)
    assert Flavours().flavour is None

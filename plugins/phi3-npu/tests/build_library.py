"""Build intel-npu-acceleration-library for Linux, where PyPI has its source only: ``python build_library.py FOLDER``.

The source's CMake fetches an OpenVINO archive from a host and knows Ubuntu alone. PyPI's OpenVINO wheel of the same
release carries the same headers, CMake files and libraries; laid out as the archive is, it takes the archive's place.
Needs g++, CMake 3.16 and pip. The compiler is told ``-march=native`` by the source, so the wheel is for this machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

LIBRARY = "intel-npu-acceleration-library==1.4.0"
OPENVINO = "openvino==2024.4.0"  # what the library's CMakeLists.txt asks for
# setup.py speaks to parts of setuptools that have been announced to go.
_SETUPTOOLS = "setuptools<82"
_NEEDED = ("libopenvino.so", "libopenvino_intel_cpu", "libopenvino_intel_npu", "libhwloc", "libtbb")
_TOOLCHAIN = """\
set(FETCHCONTENT_SOURCE_DIR_OPENVINO "{folder}" CACHE PATH "")
set(OV_LIBRARY_URL "unused" CACHE STRING "")
"""


def build(output: Path) -> Path:
    """Put the wheel into the folder ``output``, unless it is there already, and return it."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    pattern = f"intel_npu_acceleration_library-*-{tag}-*.whl"
    output.mkdir(parents=True, exist_ok=True)
    if not list(output.glob(pattern)):
        with tempfile.TemporaryDirectory() as folder:
            _build(Path(folder), output)
    (wheel,) = output.glob(pattern)
    return wheel


def _build(scratch: Path, output: Path) -> None:
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "download", "--quiet", "--no-deps", "--dest", scratch, OPENVINO], check=True)
    (archive,) = scratch.glob("openvino-*.whl")
    root = scratch / "openvino-archive"
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(root)
    _lay_out(root)
    toolchain = scratch / "toolchain.cmake"
    toolchain.write_text(_TOOLCHAIN.format(folder=root.as_posix()), encoding="utf-8")
    constraint = scratch / "constraint.txt"
    constraint.write_text(_SETUPTOOLS + "\n", encoding="utf-8")
    name = LIBRARY.partition("==")[0]
    subprocess.run(
        # In an environment of its own also by the pips that come with older Pythons, whose own may lack `wheel`.
        [*pip, "wheel", "--use-pep517", "--no-deps", "--no-binary", name, "--wheel-dir", scratch / "wheels", LIBRARY],
        check=True,
        env={**os.environ, "CMAKE_TOOLCHAIN_FILE": str(toolchain), "PIP_CONSTRAINT": str(constraint)},
    )
    for wheel in (scratch / "wheels").glob("*.whl"):
        partial = output / f".{wheel.name}"
        shutil.copyfile(wheel, partial)
        partial.replace(output / wheel.name)


def _lay_out(root: Path) -> None:
    """Give the files of the wheel the places that they have in OpenVINO's archive."""
    package = root / "openvino"
    (root / "runtime").symlink_to("openvino")  # include/ and cmake/ are as they should be
    libraries = package / "lib" / "intel64"
    libraries.mkdir(parents=True)
    for file in (package / "libs").iterdir():
        if file.name.startswith(_NEEDED):
            (libraries / file.name).symlink_to(file)
    # The library is loaded by its plain name, which a wheel, having no links, leaves out.
    (versioned,) = (package / "libs").glob("libopenvino.so.*")
    (libraries / "libopenvino.so").symlink_to(versioned)


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()))

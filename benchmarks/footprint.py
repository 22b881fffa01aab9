"""The size on disk of an environment with phi3-core and phi3-openvino, and what must not be in it."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNWANTED = ("torch", "transformers", "nncf", "onnx")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "Scripts" if sys.platform == "win32" else "bin", "python")
        install = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            f"{ROOT / 'core'}[sample]",
            str(ROOT / "plugins/phi3-openvino"),
        ]
        subprocess.run(install, check=True)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file() and not file.is_symlink())
        (site,) = (path for path in Path(folder).rglob("site-packages") if path.is_dir())
        found = [name for name in UNWANTED if (site / name).exists()]
    print(f"environment: {size / 1e6:.0f} MB; bound: under 420 MB; unwanted: {', '.join(found) or 'none'}")


if __name__ == "__main__":
    main()

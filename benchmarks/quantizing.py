"""Quantize Phi-3-mini, full size with random weights, with this project and with the reference exporter.

The second one installs optimum-intel the first time; have PIP_CONSTRAINT name a CPU build of torch. It needs 12 GB
of memory, and both need 20 GB on the disk. Quality is not measured, since random weights have none.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import psutil
from _common import phi3_command
from phi3_core.checkpoint import gguf_tokenizer
from phi3_core.checkpoint.gguf import Gguf
from phi3_core.models.sample_package import obtain_package
from phi3_core.store.store import Store
from phi3_core.testing.checkpoints import PHI_3_MINI, write_random
from phi3_core.values import no_progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="keep the random checkpoint here, or take the one that is there")
    parser.add_argument("--device", default="openvino:CPU")
    parser.add_argument("--precision", default="int4")
    parser.add_argument("--skip-reference", action="store_true", help="measure this project only")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(given.folder or scratch, "phi-3-mini-random")
        if not (source / "tokenizer.json").is_file():
            write_random(source, PHI_3_MINI, dtype="BF16")
            write_tokenizer(source)
        wanted = ["--device", given.device, "--precision", given.precision, "--no-check"]
        ours = measured(source, wanted, Path(scratch, "home"))
        print(f"this project: {ours[0]:.0f} s, {ours[1] / 1e9:.2f} GB private")
        if given.skip_reference:
            return
        store = Path(given.folder or scratch, "home")
        subprocess.run(
            phi3_command("quantize", "sample", *wanted, "--exporter", "reference"),
            env={**os.environ, "PHI3_HOME": str(store)},
            check=True,
        )
        theirs = measured(source, [*wanted, "--exporter", "reference"], store)
        print(f"reference: {theirs[0]:.0f} s, {theirs[1] / 1e9:.2f} GB private")
        print(f"ratio {ours[0] / theirs[0]:.2f}; bounds for openvino: a third, and 3 GB")


def write_tokenizer(folder: Path) -> None:
    """The tokenizer of ``sample``, cut down to Phi-3-mini's vocabulary."""
    gguf_tokenizer.write_tokenizer(Gguf.open(obtain_package(Store(), no_progress, offline=False).file), folder)
    file = folder / "tokenizer.json"
    known = json.loads(file.read_text(encoding="utf-8"))
    words = {word: number for word, number in known["model"]["vocab"].items() if number < PHI_3_MINI["vocab_size"]}
    known["model"]["vocab"] = words
    known["model"]["merges"] = [pair for pair in known["model"]["merges"] if "".join(pair) in words]
    file.write_text(json.dumps(known), encoding="utf-8")


def measured(source: Path, arguments: list[str], home: Path) -> tuple[float, int]:
    """Seconds, and the peak of the private memory of all processes together."""
    environment = {**os.environ, "PHI3_HOME": str(home)}
    shutil.rmtree(home / "artifacts", ignore_errors=True)
    started = time.perf_counter()
    with subprocess.Popen(
        phi3_command("quantize", str(source), *arguments), env=environment, stdin=subprocess.DEVNULL
    ) as process:
        peak = 0

        def watch() -> None:
            nonlocal peak
            while process.poll() is None:
                peak = max(peak, private(process.pid))
                time.sleep(0.2)

        watcher = threading.Thread(target=watch)
        watcher.start()
        failed = process.wait()
        took = time.perf_counter() - started
        watcher.join()
    if failed:
        raise SystemExit(f"phi3 quantize ended with {failed}")
    return took, peak


def private(pid: int) -> int:
    """Memory of a process and its children that belongs to no file: what a machine has to have."""
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            total += anonymous(process)
    except psutil.Error:
        pass
    return total


def anonymous(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status")
    try:
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    memory = process.memory_info()
    return getattr(memory, "private", memory.rss)


if __name__ == "__main__":
    main()

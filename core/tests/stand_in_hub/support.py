"""What the tests of the hub's rooms share: a repository, the servers that offer it, and processes that fetch it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from phi3_core.hub.download import PARTIAL, download
from phi3_core.hub.snapshot import select_files, take_snapshot
from phi3_core.hub.transfer import size_of

SOURCES = Path(__file__).parents[2] / "src"
REPOSITORY = "acme/phi"
LARGE = "model-00001-of-00002.safetensors"
SIZE = 3 * 2**20 + 17
SLACK = 2**17
"""What may be on its way, or in a client's buffer, when a connection or a process ends."""


def settings(**changes: object) -> bytes:
    """The ``config.json`` of a small Phi-3, with changes."""
    sizes = {"vocab_size": 32064, "hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 96}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4}
    return json.dumps({"model_type": "phi3", **sizes, **layers, **changes}).encode()


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def checkpoint() -> dict[str, bytes]:
    return {
        LARGE: noise(SIZE, 1),
        "model-00002-of-00002.safetensors": noise(300_000, 2),
        "model.safetensors.index.json": b'{"weight_map": {}}',
        "config.json": b'{"model_type": "phi3"}',
        "tokenizer.json": noise(9_000, 3),
        "tokenizer.model": noise(5_000, 4),
        "chat_template.jinja": b"{{ messages }}",
        "LICENSE": b"MIT",
        "README.md": b"# Phi",
        "empty.json": b"",
    }


UNWANTED = {
    "modeling_phi3.py": b"import os",
    "pytorch_model.bin": noise(5_000),
    "optimizer.pt": noise(5_000),
    "scaler.pkl": noise(5_000),
    "phi3.json": b"{}",
    "model.gguf": noise(5_000),
    "openvino.so": noise(100),
    ".gitattributes": b"",
    "onnx/model.onnx": noise(5_000),
    "openvino/openvino_model.bin": noise(5_000),
}


def ignore(stage: str, done: int | None = None, total: int | None = None) -> None:
    pass


def pull(destination: Path, progress=ignore, *, offline: bool = False, repository: str = REPOSITORY) -> None:
    snapshot = take_snapshot(repository)
    download(snapshot, select_files(snapshot.files), destination, progress, offline=offline)


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    assert not any(path.is_symlink() for path in files)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def largest_partial(destination: Path) -> int:
    return max((size_of(path) for path in (destination / PARTIAL).glob("*")), default=-1)


def asked_for(server) -> set[str]:
    return {request.name for request in server.requests} - {"api"}


PULL = """
    import sys
    from pathlib import Path
    from phi3_core.hub.snapshot import select_files, take_snapshot
    from phi3_core.hub.download import download
    from phi3_core.store.locking import locked

    def progress(stage, done=None, total=None):
        print(stage, done, total, flush=True)

    destination = Path(sys.argv[1])
    with locked(destination, progress):
        snapshot = take_snapshot("acme/phi")
        download(snapshot, select_files(snapshot.files), destination, progress)
    print("done", flush=True)
"""


def with_sources() -> dict[str, str]:
    """An environment in which a child finds the package, installed or not."""
    path = os.pathsep.join(filter(None, [str(SOURCES), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def start_pull(destination: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PULL), str(destination)],
        env=with_sources(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_partial_has(destination: Path, size: int) -> None:
    deadline = time.monotonic() + 20
    while largest_partial(destination) < size:
        assert time.monotonic() < deadline, "the download does not get so far"
        time.sleep(0.01)

"""Getting models from a hub, by the command line: the real client, a stand-in hub, a toy backend."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from phi3_core.errors import TooLargeError
from phi3_core.models import fit
from phi3_core.models.catalogue import CATALOGUE
from phi3_core.models.ref import ModelRef
from phi3_core.values import Device
from stand_in_hub import support

MODEL = "phi-3-mini-4k-instruct"
SOURCE = "microsoft/Phi-3-mini-4k-instruct"
READY = "acme/phi-3-parrot"
WEIGHTS = "openvino_model.bin"

PUBLISHES = """
from phi3_core import Published

@hookimpl
def published(model, precision):
    return Published(repository="acme/phi-3-parrot") if precision == "fp16" else None

@hookimpl
def recognize(path):
    return "fp16" if (path / "openvino_model.bin").exists() or (path / "parrot.txt").exists() else None
"""


def repository(tokenizer: bytes, **more: bytes) -> dict[str, bytes]:
    return {
        "config.json": support.settings(),
        "tokenizer.json": tokenizer,
        "modeling_phi3.py": b"import os",
        **{name.replace("__", "."): content for name, content in more.items()},
    }


@pytest.fixture
def tokenizer(phi3_folder) -> bytes:
    return (phi3_folder / "tokenizer.json").read_bytes()


@pytest.fixture
def ready(tokenizer) -> dict[str, bytes]:
    """A repository with weights that the parrot loads as they are."""
    return repository(tokenizer, openvino_model__bin=support.noise(3 * 2**20, 7))


@pytest.fixture
def original(tokenizer) -> dict[str, bytes]:
    return repository(tokenizer, model__safetensors=support.noise(2**20, 8))


@pytest.fixture
def phi3(plugins, server, run_main, monkeypatch):
    """Run one command in this process; returns (exit code, stdout, stderr)."""
    plugins.add("parrot", changes=PUBLISHES)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))

    return run_main


def folder(home: Path) -> Path:
    return home / "artifacts" / MODEL / "parrot-fp16"


def manifest(home: Path) -> dict:
    return json.loads((folder(home) / "phi3.json").read_text(encoding="utf-8"))


def test_published_weights_are_fetched_once_and_say_where_they_are_from(phi3, server, ready, home):
    commit = server.add(READY, ready)
    code, out, _ = phi3("models", "pull", MODEL, "--json")
    pulled = json.loads(out)
    assert (code, pulled["revision"], pulled["path"]) == (0, commit, str(folder(home)))
    assert pulled["how"] == f"published as {READY} at {commit[:12]}"
    assert manifest(home)["source"] == {"repository": READY, "folder": ""}
    assert manifest(home)["revision"] == commit
    assert set(manifest(home)["files"]) == {"config.json", "tokenizer.json", WEIGHTS}
    assert not [request for request in server.requests if request.name.endswith(".py")]
    before = len(server.requests)
    assert phi3("models", "pull", MODEL)[0] == 0
    server.stop()
    code, out, _ = phi3("models", "pull", MODEL, "--offline")
    assert (code, len(server.requests)) == (0, before)


@pytest.mark.parametrize("why", ["missing", "another form", "no weights"])
def test_what_is_not_as_announced_falls_through_to_quantizing(phi3, server, tokenizer, original, home, why):
    if why == "another form":
        server.add(READY, repository(tokenizer, model__onnx=b"1"))
    elif why == "no weights":
        server.add(READY, repository(tokenizer))
    commit = server.add(SOURCE, original)
    code, _, err = phi3("models", "pull", MODEL)
    assert code == 0
    assert f"looking for another way to get {MODEL}" in err
    assert manifest(home)["recipe"]["precision"] == "fp16"
    assert manifest(home)["source"] == {"model": MODEL, "revision": commit}
    listed = json.loads(phi3("models", "list", "--json")[1])["entries"]
    assert [(entry["form"], entry["revision"]) for entry in listed] == [("source", commit), ("artifact", None)]


def test_an_update_fetches_only_what_is_new(phi3, server, ready, home):
    first = server.add(READY, ready)
    phi3("models", "pull", MODEL)
    bodies = len(server.bodies(WEIGHTS))
    code, out, _ = phi3("models", "pull", MODEL, "--update", "--json")
    assert (code, json.loads(out)["revision"], len(server.bodies(WEIGHTS))) == (0, first, bodies)
    assert "newest" in json.loads(out)["how"]
    second = server.add(READY, {**ready, WEIGHTS: support.noise(2**20, 9)})
    assert json.loads(phi3("models", "pull", MODEL, "--json")[1])["revision"] == first
    assert json.loads(phi3("models", "pull", MODEL, "--update", "--json")[1])["revision"] == second
    assert (folder(home) / WEIGHTS).stat().st_size == 2**20
    assert len(json.loads(phi3("models", "list", "--json")[1])["entries"]) == 1


def test_a_dry_run_names_files_and_bytes_and_fetches_nothing(phi3, server, ready, original, home):
    commit = server.add(READY, ready)
    server.add(SOURCE, original)
    code, out, _ = phi3("models", "pull", MODEL, "--dry-run", "--json")
    planned = json.loads(out)
    assert (code, planned["repository"], planned["commit"]) == (0, READY, commit)
    assert {file["name"]: file["size"] for file in planned["files"]}[WEIGHTS] == 3 * 2**20
    assert planned["size_bytes"] == sum(file["size"] for file in planned["files"])
    assert {request.name for request in server.requests} == {"api"}
    assert not folder(home).exists()
    assert SOURCE in phi3("models", "pull", MODEL, "--dry-run", "--source")[1]
    phi3("models", "pull", MODEL)
    assert "nothing" in phi3("models", "pull", MODEL, "--dry-run")[1]


def test_a_dry_run_of_original_weights_names_nothing_that_the_store_has(phi3, server, original):
    server.add("somebody/my-phi", original)
    dry = ("models", "pull", "somebody/my-phi", "--dry-run", "--source")
    assert "model.safetensors" in phi3(*dry)[1]
    phi3("models", "pull", "somebody/my-phi", "--source")
    assert "nothing: it is in" in phi3(*dry)[1]
    assert "nothing: it is in" in phi3(*dry, "--update")[1]
    server.add("somebody/my-phi", {**original, "model.safetensors": support.noise(2**20, 5)})
    assert "model.safetensors" in phi3(*dry, "--update")[1]


def test_repair_fetches_what_is_damaged_and_nothing_else(phi3, server, ready, home):
    server.add(READY, ready)
    phi3("models", "pull", MODEL)
    weights = folder(home) / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[1000] ^= 1
    weights.write_bytes(content)
    code, out, err = phi3("models", "verify", MODEL)
    assert code == 4
    assert f"{WEIGHTS} is damaged" in out
    assert f"phi3 models verify --repair {MODEL}" in err
    server.requests.clear()
    code, out, _ = phi3("models", "verify", "--repair", MODEL)
    assert (code, out.strip()) == (0, f"{folder(home)}: whole")
    assert {request.name for request in server.requests} == {"api", WEIGHTS}
    assert weights.read_bytes() == ready[WEIGHTS]


def test_what_has_not_been_used_for_long_can_be_removed(phi3, server, ready, home):
    server.add(READY, ready)
    phi3("models", "pull", MODEL)
    assert phi3("models", "rm", "--unused", "30")[0] == 0
    assert folder(home).exists()
    old = time.time() - 40 * 86400
    os.utime(folder(home) / "phi3.json", (old, old))
    (entry,) = json.loads(phi3("models", "list", "--json")[1])["entries"]
    assert entry["used"].startswith(time.strftime("%Y-%m-%d", time.gmtime(old)))
    assert phi3("models", "rm", "--unused", "30")[0] == 0
    assert not folder(home).exists()
    assert phi3("models", "rm")[0] == 2


def test_a_first_run_fetches_the_default_model_and_counts_as_its_use(phi3, server, ready, home):
    server.add(READY, ready)
    code, out, err = phi3("run", "Hello world", "-m", MODEL, "-d", "parrot")
    assert (code, out.strip()) == (0, "Hello world")
    assert f"published as {READY}" in err
    old = time.time() - 40 * 86400
    os.utime(folder(home) / "phi3.json", (old, old))
    server.stop()
    assert phi3("run", "Hello", "-d", "parrot", "--offline")[0] == 0
    assert (folder(home) / "phi3.json").stat().st_mtime > old + 86400


def test_a_repository_outside_the_catalogue_works_if_it_is_of_the_family(phi3, server, original, home):
    commit = server.add("somebody/my-phi", original)
    code, out, _ = phi3("models", "pull", "somebody/my-phi", "--json")
    assert (code, json.loads(out)["precision"]) == (0, "fp16")
    assert {entry["model"] for entry in json.loads(phi3("models", "list", "--json")[1])["entries"]} == {
        "somebody--my-phi"
    }
    assert json.loads((home / "sources" / "somebody--my-phi" / "phi3.json").read_text())["revision"] == commit


def test_a_repository_with_ready_weights_outside_the_catalogue(phi3, server, ready):
    server.add("somebody/ready", ready)
    code, out, _ = phi3("models", "pull", "somebody/ready", "--json")
    assert (code, json.loads(out)["precision"]) == (0, "fp16")


def test_another_family_is_refused_by_name_before_its_weights_are_fetched(phi3, server, original):
    server.add("somebody/llama", {**original, "config.json": b'{"model_type": "llama"}'})
    code, _, err = phi3("models", "pull", "somebody/llama")
    assert code == 4
    assert "somebody/llama is a model of type 'llama', not of the Phi-3 family" in err
    assert phi3("models", "pull", "somebody/llama", "--dry-run")[::2] == (code, err)
    assert not server.bodies("model.safetensors")


@pytest.mark.parametrize(
    ("name", "words"),
    [("../evil.json", "forward slashes|leads out"), ("nul.json", "Windows"), ("/abs.json", "relative")],
)
def test_names_that_lead_out_of_the_folder_are_refused(phi3, server, ready, home, name, words):
    import re

    server.add(READY, {**ready, name: b"{}"})
    code, _, err = phi3("models", "pull", MODEL)
    assert code == 4
    assert re.search(words, err)
    assert not folder(home).exists()


def test_offline_is_heeded(phi3, server, ready, monkeypatch):
    server.add(READY, ready)
    code, _, err = phi3("models", "pull", MODEL, "--offline")
    assert (code, server.requests) == (4, [])
    assert "--offline" in err
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert phi3("models", "pull", MODEL)[0] == 4
    assert server.requests == []


def start_pull(home: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "phi3_core", "models", "pull", MODEL],
        env={**os.environ, "PHI3_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("point", [500_000, 2_000_000])
def test_a_pull_that_is_killed_goes_on_where_it_stopped(phi3, server, ready, home, point):
    server.add(READY, ready)
    server.fault(WEIGHTS, hold_after=point)
    with start_pull(home) as child:
        server.wait_for(lambda: bool(server.bodies(WEIGHTS)) and server.served(WEIGHTS) >= point)
        staging = home / "staging" / f"artifacts-{MODEL}-parrot-fp16"
        support.until_partial_has(staging, max(0, point - support.SLACK))
        child.send_signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
        child.communicate()
    assert json.loads(phi3("models", "list", "--json")[1])["entries"] == []
    server.mend()
    assert phi3("models", "pull", MODEL)[0] == 0
    assert (folder(home) / WEIGHTS).read_bytes() == ready[WEIGHTS]
    assert server.bodies(WEIGHTS)[-1].range
    assert not staging.exists()


def test_two_pulls_at_once_do_the_work_once(phi3, server, ready, home):
    server.add(READY, ready)
    server.fault(WEIGHTS, bytes_per_second=3 * 2**20)
    with start_pull(home) as one, start_pull(home) as two:
        codes = [one.wait(60), two.wait(60)]
        one.communicate(), two.communicate()
    assert codes == [0, 0]
    assert len(server.bodies(WEIGHTS)) == 1


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(phi3, server, ready, make_disk, monkeypatch):
    disk = make_disk(2**20)
    monkeypatch.setenv("PHI3_HOME", str(disk))
    server.add(READY, ready)
    code, _, err = phi3("models", "pull", MODEL)
    assert code == 4
    assert "the download needs 3." in err
    assert "the download needs 3." in phi3("models", "pull", MODEL, "--dry-run")[2]
    assert "PHI3_HOME" in err
    assert not server.bodies(WEIGHTS)


def test_a_wrong_byte_is_refused_and_not_published(phi3, server, ready, home):
    server.add(READY, ready)
    server.fault(WEIGHTS, wrong_byte=5, times=1)
    code, _, err = phi3("models", "pull", MODEL)
    assert code == 4
    assert f"{WEIGHTS} arrived damaged" in err
    assert not folder(home).exists()
    assert phi3("models", "pull", MODEL)[0] == 0


# --- the hub's own cache --------------------------------------------------------------------------------------------


@pytest.fixture
def put(server, tmp_path, monkeypatch):
    """Let the hub's client download a repository into its cache, as another program would have done."""
    import huggingface_hub

    folder = tmp_path / "hub-cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))

    def put(repository, **how):
        api = huggingface_hub.HfApi(endpoint=server.url)
        # As in test_cache.py: one after the other, for files of the same content.
        api.snapshot_download(repository, cache_dir=folder, max_workers=1, **how)
        server.requests.clear()
        return folder

    return put


@pytest.mark.parametrize("offline", [["--offline"], []])
def test_published_weights_in_the_hub_s_cache_are_not_fetched_again(phi3, server, ready, put, offline):
    commit = server.add(READY, {**ready, "openvino_model.xml": b"<net/>"})
    cache = put(READY)
    code, out, _ = phi3("models", "pull", MODEL, "--dry-run", *offline)
    assert (code, out.strip()) == (0, f"0 B  nothing: 4 of 4 files are in the hub's cache in {cache}")
    code, out, err = phi3("models", "pull", MODEL, "--json", *offline)
    assert (code, json.loads(out)["revision"]) == (0, commit)
    assert f"were taken from the hub's cache in {cache}" in err
    assert support.asked_for(server) == set()
    assert bool(server.requests) == (not offline)


@pytest.mark.parametrize("offline", [["--offline"], []])
def test_original_weights_in_the_hub_s_cache_come_before_published_ones(phi3, server, ready, original, put, offline):
    server.add(READY, ready)
    commit = server.add(SOURCE, original)
    put(SOURCE)
    code, out, _ = phi3("models", "pull", MODEL, "--json", *offline)
    assert (code, json.loads(out)["how"]) == (0, "quantized from the original weights")
    assert support.asked_for(server) == set()
    code, out, _ = phi3("models", "pull", MODEL, "--json", "--update")
    assert json.loads(out)["how"].startswith(f"published as {READY}")
    assert json.loads(phi3("models", "list", "--json")[1])["entries"][0]["revision"] == commit


@pytest.mark.parametrize("offline", [["--offline"], []])
def test_a_repository_in_the_hub_s_cache_answers(phi3, server, ready, put, offline):
    server.add("somebody/ready", {**ready, "openvino_model.xml": b"<net/>"})
    put("somebody/ready")
    code, out, _ = phi3("run", "Hello world", "-m", "somebody/ready", "-d", "parrot", *offline)
    assert (code, out.strip()) == (0, "Hello world")
    assert support.asked_for(server) == set()


def test_what_no_backend_recognizes_is_refused_before_its_weights_are_fetched(phi3, server, tokenizer):
    server.add("somebody/web", repository(tokenizer, model_q4__onnx=support.noise(2**20, 3)))
    code, _, err = phi3("models", "pull", "somebody/web")
    assert code == 4
    assert "parrot finds no weights in somebody/web that it can load: model_q4.onnx has no genai_config.json" in err
    assert phi3("models", "pull", "somebody/web", "--dry-run")[::2] == (code, err)
    assert not server.bodies("model_q4.onnx")


# --- memory ---------------------------------------------------------------------------------------------------------

GB = 10**9


def device(memory_bytes: int) -> Device:
    return Device(backend="x", id="0", kind="gpu", name="X", memory_bytes=memory_bytes)


def test_what_does_not_fit_is_refused_with_the_figures_and_what_does():
    mini, medium = (ModelRef(name=name, form="named") for name in (MODEL, "phi-3-medium-4k-instruct"))
    assert fit.fitting_precisions(mini, device(6 * GB), ("int4", "int8", "fp16")) == ("int4", "int8")
    with pytest.raises(
        TooLargeError, match=r"phi-3-medium-4k-instruct at int8 needs 14\.6 GB.* has 12\.0 GB"
    ) as caught:
        fit.fitting_precisions(medium, device(12 * GB), ("int8",))
    assert caught.value.hint == "--precision int4 fits"
    with pytest.raises(TooLargeError) as caught:
        fit.fitting_precisions(medium, device(4 * GB), ("int4",))
    assert "smaller model" in caught.value.hint


def test_the_context_is_what_the_memory_holds():
    long = CATALOGUE["phi-3-mini-128k-instruct"]
    tokens = fit.context_that_fits(long, "int4", 16 * GB)
    assert 20_000 < tokens < 40_000
    assert fit.context_that_fits(long, "int4", 1000 * GB) == long.context_length
    assert fit.context_that_fits(long, "fp16", GB) == 0


def test_a_device_without_the_memory_is_passed_over(phi3, plugins, server, ready):
    server.add(READY, ready)
    small = """
        @hookimpl
        def detect(machine):
            device = Device(backend="small", id="0", kind="npu", name="Small", memory_bytes=2 * 10**9)
            return [Offer(device=device, precisions=["fp16"])]
    """
    plugins.add("small", changes=small)
    code, out, _ = phi3("models", "pull", MODEL, "--json")
    assert (code, json.loads(out)["device"]) == (0, "parrot:CPU")
    code, _, err = phi3("models", "pull", MODEL, "-d", "small:0")
    assert code == 4
    assert "needs 8.0 GB" in err

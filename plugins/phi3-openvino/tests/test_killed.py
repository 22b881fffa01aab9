"""A worker is killed or stopped from outside while OpenVINO generates, and another device ends the answer."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

import phi3_core as phi3
import psutil
import pytest
from attrs import frozen
from injected_faults import pattern
from injected_faults.surfaces import half_written, warnings_of_core
from phi3_core.paths import read_json, write_json

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")

QUESTION = "Tell me a story about a lighthouse."
TOKENS = 40
LIMIT_S = 10
"""How long a process that is stopped is waited for. On a busy machine a token takes seconds."""
EXACT = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32", "INFERENCE_PRECISION_HINT": "f32"}
"""Options with which it does not matter for close calls how much of a text is read at once."""
TWIN = """
from attrs import evolve
from phi3_core import Device, Offer, hookimpl
from phi3_openvino import hooks

@hookimpl
def detect(machine):
    twin = Device(backend="{name}", id="0", kind="npu", name="A twin of OpenVINO's CPU")
    return [Offer(device=twin, precisions=["int4"])]

@hookimpl
def load(artifact, options, purpose, prompt_tokens):
    cpu = Device(backend="openvino", id="CPU", kind="cpu", name="CPU")
    return hooks.load(evolve(artifact, backend="openvino"), cpu, options, purpose, prompt_tokens)

generate = hooks.generate
"""
"""A backend that comes before phi3-openvino's CPU, and is the same engine."""


@frozen(kw_only=True)
class Outcome:
    code: int
    text: str
    said: list[str]
    worker: int
    """The process that was harmed."""


@pytest.fixture(scope="module")
def alone(sample_home, folder):
    """What the CPU says, undisturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3_HOME", str(sample_home))
        with phi3.load("sample", device="openvino:CPU", options=EXACT, purpose="answer") as model:
            return model.generate(QUESTION, max_new_tokens=TOKENS).text


@pytest.fixture
def twins(plugins, home, sample_home, folder, alone, monkeypatch):
    """Two backends with the same engine, and a store in which each has the same weights, compiled already."""
    plugins.add("twin", TWIN)
    shutil.copytree(sample_home / "engines", home / "engines", copy_function=os.link)
    for name in ("openvino", "twin"):
        own = home / "artifacts" / "sample" / f"{name}-int4"
        shutil.copytree(folder, own, copy_function=os.link)
        manifest = read_json(own / "phi3.json")
        write_json(own / "phi3.json", {**manifest, "backend": name})  # a new file: the others keep theirs
    monkeypatch.setenv("PHI3_TOKEN_LIMIT", str(LIMIT_S))
    return home


def harm(parent: psutil.Process, number: signal.Signals) -> int:
    """Send a signal to the one worker of a process, and return its number."""
    (worker,) = [child for child in parent.children() if "phi3_core.worker" in child.cmdline()]
    worker.send_signal(number)
    return worker.pid


def by_api(device: str, number: signal.Signals) -> Outcome:
    text, worker = "", 0
    with warnings_of_core() as said:
        try:
            with (
                phi3.load("sample", device=device, options=EXACT, purpose="answer", check=False) as model,
                model.stream(QUESTION, max_new_tokens=TOKENS) as stream,
            ):
                for chunk in stream:
                    text += chunk
                    worker = worker or harm(psutil.Process(), number)
        except phi3.BackendError as error:
            return Outcome(code=error.exit_code, text=text, said=[*said, str(error)], worker=worker)
    return Outcome(code=0, text=text, said=said, worker=worker)


def by_command(device: str, number: signal.Signals) -> Outcome:
    options = [part for key, value in EXACT.items() for part in ("--option", f"{key}={value}")]
    asked = ("--quiet", "--no-check", "--model", "sample", "--device", device, "--max-new-tokens", str(TOKENS))
    command = [sys.executable, "-m", "phi3_core", "run", *asked, *options, QUESTION]
    nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(command, bufsize=0, stdin=nothing, stdout=pipe, stderr=pipe) as process:
        text = process.stdout.read(8)  # it has begun
        worker = harm(psutil.Process(process.pid), number)
        text += process.stdout.read()
        said = process.stderr.read().decode().splitlines()
        code = process.wait(60)
    # What the process that died has printed follows the error.
    said = [line.removeprefix("phi3: ") for line in said if not line.startswith("phi3:   | ")]
    said = [line for line in said if not line.startswith("the answer was cut off")]
    return Outcome(code=code, text=text.decode().removesuffix("\n"), said=said, worker=worker)


ASK = {"api": by_api, "cli": by_command}
SAID = {
    "SIGKILL": "twin:0: its process died during generate (SIGKILL)",
    "SIGSTOP": "twin:0: it did not answer 'generate' within 10 s and was stopped",
}
SLOW = pytest.mark.slow
ROWS = [
    ("cli", "SIGKILL"),
    *(pytest.param(*row, marks=SLOW) for row in (("api", "SIGKILL"), *product(ASK, ["SIGSTOP"]))),
]


@pytest.mark.parametrize(("surface", "name"), ROWS)
def test_an_answer_ends_on_the_other_device_as_if_nothing_had_happened(surface, name, twins, alone):
    found = ASK[surface]("auto", signal.Signals[name])
    assert (found.code, found.text) == (0, alone), found.said
    (line,) = found.said
    assert pattern(f"{SAID[name]}; continuing with openvino:CPU").fullmatch(line), line
    check_left(found, twins)


@pytest.mark.slow
@pytest.mark.parametrize(("surface", "name"), list(product(ASK, SAID)))
def test_a_device_that_was_named_is_not_replaced(surface, name, twins, alone):
    found = ASK[surface]("twin:0", signal.Signals[name])
    assert found.code == 5
    assert found.text
    assert alone.startswith(found.text)
    (line,) = found.said
    assert pattern(SAID[name]).fullmatch(line), line
    check_left(found, twins)


def check_left(found: Outcome, home: Path) -> None:
    """Nothing of the worker is left, and nothing half-written."""
    assert found.worker
    assert not psutil.pid_exists(found.worker)
    assert half_written(home) == []

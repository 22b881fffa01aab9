"""What needs Windows: an adapter whose driver dies, processes that are killed, folders' names, and code pages."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import psutil
import pytest

FRANCE = "What is the capital of France?"


def is_wine() -> bool:
    if sys.platform != "win32":
        return False
    import ctypes

    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


pytestmark = pytest.mark.skipif(not is_wine(), reason="the session windows runs it, under Wine")


@pytest.fixture
def answer(phi3, sample_store):
    def run(*arguments):
        done = phi3("run", "--model", "sample", *arguments, FRANCE)
        return done.returncode, done.stdout.strip(), done.stderr

    return run


@pytest.mark.parametrize("device", ["openvino:CPU", "dml:CPU"])
def test_a_backend_answers(answer, device):
    code, out, err = answer("--device", device)
    assert (code, out) == (0, "The capital of France is Paris."), err


def test_an_adapter_whose_driver_dies_costs_a_sentence(answer, phi3):
    """Wine's adapter is Mesa's, on the CPU; DirectML asks it for a function that Wine does not have, and dies."""
    found = json.loads(phi3("devices", "--json").stdout)
    assert [each["device"] for each in found["candidates"]].index("dml:0") == 0, found
    code, out, err = answer()
    assert (code, out) == (0, "The capital of France is Paris."), err
    assert "dml:0: its process died during load" in err
    assert "openvino:CPU" in err


@pytest.mark.parametrize("folder", ["Anna Müller", "王小明", "x" * 120], ids=["code-page", "unicode", "long"])
def test_the_store_may_be_anywhere(phi3, sample_needed, tmp_path, monkeypatch, folder):
    monkeypatch.setenv("PHI3_HOME", str(tmp_path / folder / "store"))
    for device in ("openvino:CPU", "dml:CPU"):
        done = phi3("run", "-q", "--model", "sample", "--device", device, FRANCE)
        assert (done.returncode, done.stdout.strip()) == (0, "The capital of France is Paris."), done.stderr


@pytest.mark.parametrize("device", ["openvino:CPU", "dml:CPU"])
def test_a_host_that_is_killed_leaves_nothing(command, sample_store, device):
    arguments = [command, "run", "--model", "sample", "-q", "--device", device, "--max-new-tokens", "2000", "Count."]
    with subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout.read(1)
        family = psutil.Process(launcher.pid).children(recursive=True)
        workers = [process for process in family if "phi3_core.worker" in process.cmdline()]
        assert len(workers) == 1
        for process in set(family) - set(workers):
            process.kill()
        assert psutil.wait_procs(family, timeout=10)[1] == []


def test_in_a_virtual_environment_the_worker_is_the_process_that_was_started(tmp_path):
    uv = Path(sysconfig.get_path("purelib"), "bin", "uv.exe")
    subprocess.run([uv, "venv", "--quiet", "--no-project", "--python", sys.executable, tmp_path / "venv"], check=True)
    script = f"""
import os, sys
sys.path.append({sysconfig.get_path("purelib")!r})
from phi3_core.plugin import installed
from phi3_core.worker.host import Worker
assert sys.prefix != sys.base_prefix
worker = Worker().open(installed()[0][0])
print(len(worker.hooks) > 2, worker._process.args[0] == sys._base_executable != sys.executable)
worker.close()
"""
    done = subprocess.run(
        [tmp_path / "venv" / "Scripts" / "python.exe", "-c", script], capture_output=True, check=False
    )
    assert done.stdout.split() == [b"True", b"True"], done.stderr


def in_console(script: str) -> subprocess.CompletedProcess[bytes]:
    """Run a script in a console of its own."""
    console = 0x10  # CREATE_NEW_CONSOLE, which subprocess has on Windows only
    arguments = [sys.executable, "-c", f"import ctypes, subprocess, sys\nkernel = ctypes.windll.kernel32\n{script}"]
    return subprocess.run(arguments, capture_output=True, check=False, timeout=120, creationflags=console)


@pytest.mark.parametrize(("page", "word"), [("437", "Größe"), ("932", "日本"), ("65001", "Größe")])
def test_text_in_the_consoles_code_page_is_understood(command, sample_store, page, word):
    """cmd.exe's echo writes in the code page of its console."""
    run = [str(command), "run", "-q", "-m", "sample", "-d", "openvino:CPU", "--max-new-tokens", "1", "--json", "-"]
    text = f"Repeat: {word}"
    script = f"""
assert kernel.SetConsoleOutputCP({page})
raise SystemExit(subprocess.run({run!r}, input={text.encode("utf-8" if page == "65001" else f"cp{page}")!r}).returncode)
"""
    expected = subprocess.run(run, input=text.encode(), capture_output=True, check=False, timeout=120)
    done = in_console(script)
    assert (done.returncode, expected.returncode) == (0, 0), done.stderr
    assert json.loads(done.stdout)["prompt_tokens"] == json.loads(expected.stdout)["prompt_tokens"]


@pytest.mark.parametrize("device", ["openvino:CPU", "dml:CPU"])
def test_ctrl_c_ends_an_answer_and_leaves_nothing(command, sample_store, device):
    run = [str(command), "run", "-q", "-m", "sample", "-d", device, "--max-new-tokens", "2000", "Tell me a long story."]
    script = f"""
import psutil, time
process = subprocess.Popen({run!r}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
assert process.stdout.read(1)
family = [each for each in psutil.Process().children(recursive=True) if "phi3" in str(each.cmdline())]
kernel.SetConsoleCtrlHandler(None, True)  # this process goes on
start = time.monotonic()
assert kernel.GenerateConsoleCtrlEvent(0, 0)
code = process.wait(20)
left = psutil.wait_procs(family, timeout=10)[1]
print(code, len(family), len(left), time.monotonic() - start)
"""
    done = in_console(script)
    assert done.returncode == 0, done.stderr
    code, family, left, seconds = done.stdout.split()
    assert (code, family, left) == (b"130", b"3", b"0")  # the launcher, its Python, and the worker
    assert float(seconds) < 10

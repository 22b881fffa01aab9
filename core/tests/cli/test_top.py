"""``phi3 top`` and the figures of ``--stats``, as users meet them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys

import phi3_core as phi3
import pytest
from batching import wait_until
from phi3_core.activity.overview import ActiveEngine, NpuActivity, Overview
from phi3_core.activity.running import RunningEngine, running_engines
from phi3_core.activity.values import Activity
from phi3_core.cli import top_output
from phi3_core.cli.activity import words
from rich.console import Console


@pytest.fixture
def model(plugins, source):
    plugins.add("parrot")
    with phi3.load(source, device="parrot") as loaded:
        wait_until(running_engines)
        yield loaded


@pytest.mark.parametrize("flags", [(), ("--once",)], ids=["piped", "--once"])
def test_without_engines_it_says_what_starts_one(home, run_main, flags):
    code, out, err = run_main("top", *flags)
    assert (code, err) == (0, "")
    assert out == "no engine is running; phi3 run, phi3 chat and programs that use phi3_core start one\n"


def test_json_without_engines(home, run_main):
    code, out, _ = run_main("top", "--json", "--interval", "0.5")
    found = json.loads(out)
    assert (code, found["engines"]) == (0, [])
    assert 0 <= found["machine"]["cpu"] <= 1
    assert found["machine"]["memory_used_bytes"] < found["machine"]["memory_bytes"]


def test_an_engine_is_a_line_once_and_has_the_documented_keys(model, run_main):
    code, out, _ = run_main("top", "--once", "--interval", "0.5")
    assert code == 0
    assert re.match(r"CPU \d+ %, memory [\d.]+ [MG]B of [\d.]+ GB\n", out)
    (line,) = [line for line in out.splitlines() if str(model.process) in line]
    assert line.split()[:5] == [str(model.process), model.name, "parrot:CPU", "fp16", "idle"]
    assert line.rstrip().endswith("just now")
    code, out, _ = run_main("top", "--json", "--interval", "0.5")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {"seconds", "machine", "engines"}
    assert set(found["machine"]) == {"cpu", "memory_bytes", "memory_used_bytes", "npus"}
    (engine,) = found["engines"]
    assert set(engine) == {
        *("process", "model", "device", "kind", "name", "precision", "backend", "context_length", "max_concurrency"),
        *("since", "state", "running", "waiting", "answers", "tokens", "tokens_per_s"),
        *("engine_cpu", "gpu", "npu", "memory_bytes", "device_memory_bytes"),
    }
    assert (engine["process"], engine["state"]) == (model.process, "idle")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", engine["since"])


@pytest.mark.parametrize("interval", ["0", "0.1", "nan", "soon"])
def test_an_interval_that_would_disturb_drivers_is_refused(run_main, interval):
    code, out, err = run_main("top", "--interval", interval)
    assert (code, out) == (2, "")
    assert "0.5 to 3600" in err


# --- what is drawn ----------------------------------------------------------------------------------------------------


def engine(**facts):
    given = {"process": 4188, "model": "phi-3-mini-4k-instruct", "device": "openvino:NPU", "kind": "npu"}
    more = {"name": "Intel(R) AI Boost", "precision": "int4", "backend": "phi3-openvino 0.2.0", "state": "generating"}
    numbers = {"context_length": 1152, "max_concurrency": 1, "since": 0.0, "running": 1, "waiting": 2}
    return RunningEngine(**{**given, **more, **numbers, "tokens_per_s": 23.17, **facts})


BUSY = Overview(
    machine=Activity(seconds=1.0, cpu=0.254),
    memory_bytes=32 * 10**9,
    memory_used_bytes=9 * 10**9,
    npus=(NpuActivity(name="accel0", busy=0.87, memory_bytes=2_150_000_000, frequency_mhz=1400),),
    engines=(
        ActiveEngine(
            engine=engine(), activity=Activity(seconds=1.0, engine_cpu=0.02, npu=0.87, memory_bytes=2_400_000_000)
        ),
    ),
)


def drawn(width):
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(top_output.table(BUSY.engines, console, width))
    return capture.get()


def test_a_wide_terminal_shows_everything():
    headings, *_, row = [line for line in drawn(200).splitlines() if line.strip()]
    assert headings.split()[:2] == ["process", "model"]
    for text in (
        "4188",
        "phi-3-mini-4k-instruct",
        "openvino:NPU",
        "int4",
        "generating",
        "1 + 2",
        "23.2",
        "2 %",
        "87 %",
    ):
        assert text in row
    assert "2.4 GB" in row


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_a_narrow_terminal_shows_what_matters_most(width):
    lines = [line for line in drawn(width).splitlines() if line.strip()]
    assert len(lines) == 3  # nothing is folded
    assert all(len(line.rstrip()) <= width for line in lines)
    assert "phi-3-mini-4k-instruct openvino:NPU" in " ".join(lines[-1].split())
    assert ("23.2" in lines[-1]) == (width >= 60)


def test_the_machine_in_one_line():
    assert top_output.machine(BUSY) == ("CPU 25 %, memory 9.0 GB of 32.0 GB, NPU accel0 87 % (1400 MHz, 2.1 GB)")


def test_shares_are_percentages_and_what_is_not_told_is_left_out():
    assert words(Activity()) == []
    found = words(Activity(cpu=0.976, engine_cpu=0.96, gpu=0.0, npu=1.0))
    assert found == ["CPU 98 % (engine 96 %)", "GPU 0 %", "NPU 100 %"]


# --- a terminal -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal as POSIX systems have it")
def test_on_a_terminal_it_goes_on_until_ctrl_c(model):
    text = on_terminal("xterm", until=lambda text: text.count(model.name.encode()) == 2)
    assert b"\x1b[?1049h" in text
    assert b"\x1b[?1049l" in text
    assert b"\x1b[3" not in text  # no colours
    assert b"\x1b" not in on_terminal("dumb", until=lambda text: False)


def on_terminal(term, until):
    """Return what ``phi3 top`` writes on a terminal until its end, or until Ctrl-C after what ``until`` accepts."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "phi3_core", "top", "--interval", "0.5"]
    environment = {**os.environ, "TERM": term, "COLUMNS": "150", "LINES": "20", "NO_COLOR": "1"}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, env=environment) as process:
        os.close(theirs)
        text, interrupted = b"", False
        with contextlib.suppress(OSError):  # its other end is closed
            while data := os.read(ours, 65536):
                text += data
                if not interrupted and until(text):
                    interrupted = True
                    process.send_signal(signal.SIGINT)
    os.close(ours)
    assert process.returncode == 0
    return text

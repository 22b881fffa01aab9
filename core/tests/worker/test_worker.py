"""Worker processes: real ones, with plugins that behave in all the ways that plugins do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from phi3_core.errors import BackendDiedError, BackendError
from phi3_core.machine import this_machine
from phi3_core.plugin import installed
from phi3_core.values import GenerationRequest
from phi3_core.worker.host import Worker

LIMIT_S = 30.0
LOADED = """
@hookimpl
def load(artifact, device, options):
    return Engine()
"""


def start(name: str) -> Worker:
    (backend,) = [backend for backend in installed()[0] if backend.name == name]
    return Worker().open(backend)


def load(worker: Worker, tmp_path: Path) -> None:
    device = {"backend": worker.backend.name, "id": "CPU", "kind": "cpu", "name": "x"}
    artifact = {"path": str(tmp_path), "backend": worker.backend.name, "precision": "fp16"}
    worker.call("load", limit_s=LIMIT_S, artifact=artifact, device=device, options={}, purpose="answer")


@pytest.fixture
def parrot(plugins, tmp_path):
    plugins.add("parrot")
    worker = start("parrot")
    load(worker, tmp_path)
    yield worker
    worker.close()


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until(condition, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_it_answers_calls_and_streams_ids(parrot):
    assert parrot.hooks == ("detect", "generate", "load", "quantize")
    (answer,) = parrot.call("detect", limit_s=LIMIT_S, machine=this_machine())
    assert answer["offer"]["device"]["name"] == "A parrot"
    assert list(parrot.generate(GenerationRequest(prompt_ids=[3, 1, 2], max_new_tokens=9))) == [3, 1, 2]
    assert list(parrot.generate(GenerationRequest(prompt_ids=[3, 1, 2], max_new_tokens=2))) == [3, 1]


@pytest.mark.skipif(sys.platform not in {"linux", "win32"}, reason="the system does not tell")
def test_the_most_memory_that_a_worker_has_held_is_known(parrot):
    assert 10**6 < parrot.peak_memory() < 10**10


def test_what_a_plugin_prints_stays_out_of_the_way(plugins, tmp_path, capfd):
    changes = """
        import os, sys
        print("to stdout", flush=True)
        os.write(2, b"to stderr\\n")
    """
    plugins.add("noisy", changes=changes)
    worker = start("noisy")
    load(worker, tmp_path)
    assert list(worker.generate(GenerationRequest(prompt_ids=[7], max_new_tokens=1))) == [7]
    assert wait_until(lambda: len(worker.last_lines) == 2)
    assert set(worker.last_lines) == {"to stdout", "to stderr"}
    worker.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ("raise ImportError('no such DLL')", BackendError, "ImportError: no such DLL"),
        ("raise SystemExit(3)", BackendError, "it tried to exit with 3"),
        ("import os; os._exit(7)", BackendDiedError, "its process died during open (exit code 7)"),
        ("import os; os.abort()", BackendDiedError, "its process died during open"),
        ("import faulthandler; faulthandler._sigsegv()", BackendDiedError, "its process died during open"),
        ("import time; time.sleep(60)", BackendError, "it did not answer 'open' within 5 s and was stopped"),
    ],
)
def test_a_plugin_that_does_not_import_is_an_error_of_its_own(plugins, change, kind, words):
    plugins.add("bad", changes=change)
    worker = start("bad")
    with pytest.raises(kind, match=words.replace("(", r"\(").replace(")", r"\)")):
        worker.call("detect", limit_s=5.0 if "sleep" in change else LIMIT_S, machine=this_machine())
    assert not worker.alive


def test_last_words_are_kept_when_a_worker_dies(plugins):
    plugins.add("bad", changes="import os; os.write(2, b'the driver is upset\\n'); os._exit(9)")
    worker = start("bad")
    with pytest.raises(BackendDiedError) as caught:
        worker.call("detect", limit_s=LIMIT_S, machine=this_machine())
    assert caught.value.last_lines == ("the driver is upset",)


TWICE = """
@hookimpl
def detect(machine):
    devices = [Device(backend="bad", id=id, kind="gpu", name="x") for id in ("gpu", "GPU")]
    return [Offer(device=device, precisions=["int4"]) for device in devices]
"""
OTHERS = """
@hookimpl
def detect(machine):
    return [Offer(device=Device(backend="other", id="0", kind="gpu", name="x"), precisions=["int4"])]
"""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("@hookimpl\ndef detekt(machine): return []", "unknown hook 'detekt'; did you mean detect?"),
        ("@hookimpl\ndef Generate(engine): return []", "unknown hook 'Generate'; did you mean generate?"),
        ("@hookimpl\ndef xyz(engine): return []", "unknown hook 'xyz'; there is detect, "),
        (
            "@hookimpl\ndef logits(engine, tokens): return []",
            "logits of phi3_bad takes the unknown argument 'tokens'; there is engine, ids$",
        ),
        (
            "@hookimpl\ndef load(artefact, device): return []",
            "load of phi3_bad takes the unknown argument 'artefact'; did you mean artifact?",
        ),
        ("del detect", "does not implement detect$"),
        ("def detect(machine): return []", "does not implement detect; detect is there without @hookimpl"),
        (
            "@hookimpl\ndef load(artifact, *, device): return Engine()",
            "load of phi3_bad takes 'device' as keyword-only, and such arguments get nothing: write it without the *$",
        ),
        (
            "@hookimpl\ndef generate(*given: int): return iter(())",
            "generate of phi3_bad takes *given, to which nothing is passed: name the arguments it needs, of engine, r",
        ),
        (
            "@hookimpl\ndef load(artifact, **rest): return Engine()",
            "load of phi3_bad takes **rest, to which nothing is passed: name the arguments it needs, of artifact, dev",
        ),
        (
            "import functools\n@hookimpl\n@functools.cache\ndef detect(machine): return []",
            "detect of phi3_bad is no function but a _lru_cache_wrapper: put @hookimpl on a function$",
        ),
        (
            "class Callable:\n    def __call__(self, machine): return []\ndiagnose = hookimpl(Callable())",
            "diagnose of phi3_bad is no function but a Callable: put @hookimpl on a function$",
        ),
        (
            "def logits(engine, ids): return []",
            "logits of phi3_bad is there without @hookimpl: mark it, or rename it$",
        ),
        ("@hookimpl\ndef detect(machine): return 'GPU'", "detect returned a str"),
        ("@hookimpl\ndef detect(machine): return None", "detect returned None"),
        ("@hookimpl\ndef detect(machine): return [1]", "detect returned an int"),
        (OTHERS, "not a device of bad"),
        (TWICE, "detect offered a device twice, in whatever case: bad:gpu, bad:GPU$"),
        ("@hookimpl\ndef detect(machine): return [Offer(device=1, precisions=['int4'])]", "TypeError"),
        (OTHERS.replace("int4", "fp32"), "ValueError: Offer: precisions must be fp16, int8 or int4, not 'fp32'$"),
    ],
)
def test_a_hook_that_is_misspelt_or_answers_nonsense_is_named(plugins, change, words):
    plugins.add("bad")
    module = plugins.site / "phi3_bad.py"
    text = module.read_text(encoding="utf-8")
    module.write_text(f"{text}\n{change}\n", encoding="utf-8")
    worker = start("bad")
    with pytest.raises(BackendError, match=words.replace("?", r"\?").replace("*", r"\*")):
        worker.call("detect", limit_s=LIMIT_S, machine=this_machine())
    worker.close()


def test_arguments_with_a_default_are_a_plugins_own(plugins, tmp_path):
    plugins.add("good", changes="@hookimpl\ndef load(artifact, mine=3, *, also=None):\n    return Engine()\n")
    worker = start("good")
    load(worker, tmp_path)
    worker.close()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("yield from request.stop_ids", "yielded the stop id 5"),
        ("yield from range(100, 200)", "more than the 3 ids"),
        ("yield 7; raise RuntimeError('lost the device\\nbadly')", "RuntimeError: lost the device"),
    ],
)
def test_generate_is_held_to_the_contract(plugins, tmp_path, body, words):
    plugins.add("bad", changes=f"@hookimpl\ndef generate(engine, request):\n    {body}\n")
    worker = start("bad")
    load(worker, tmp_path)
    with pytest.raises(BackendError, match=words):
        list(worker.generate(GenerationRequest(prompt_ids=[1], max_new_tokens=3, stop_ids=[5])))
    assert worker.alive  # it raised; it did not die
    worker.close()


SLOW = """
import time
@hookimpl
def generate(engine, request):
    try:
        for number in range(request.max_new_tokens):
            time.sleep(0.01)
            yield number
    finally:
        print("closed", flush=True)
"""


def test_closing_the_iterator_stops_the_work_and_keeps_the_engine(plugins, tmp_path):
    plugins.add("slow", changes=SLOW)
    worker = start("slow")
    load(worker, tmp_path)
    ids = worker.generate(GenerationRequest(prompt_ids=[1], max_new_tokens=5000))
    assert next(ids) == 0
    ids.close()
    assert wait_until(lambda: worker.last_lines == ("closed",))
    assert list(worker.generate(GenerationRequest(prompt_ids=[1], max_new_tokens=3))) == [0, 1, 2]
    worker.close()


def test_an_engine_whose_tokens_take_long_has_the_time_to_stop(plugins, tmp_path):
    plugins.add("slow", changes=SLOW.replace("0.01", "0.5"))
    worker = start("slow")
    load(worker, tmp_path)
    ids = worker.generate(GenerationRequest(prompt_ids=[1], max_new_tokens=5000))
    assert [next(ids), next(ids)] == [0, 1]
    ids.close()
    assert worker.alive
    assert list(worker.generate(GenerationRequest(prompt_ids=[1], max_new_tokens=1))) == [0]
    worker.close()


def test_a_worker_that_does_not_heed_a_cancel_is_killed(plugins, tmp_path):
    # As in a prefill: the first id comes, and then nothing does, with the interpreter's lock held.
    deaf = plugins.site / "deaf"
    changes = f"""
        @hookimpl
        def generate(engine, request):
            yield 1
            open({str(deaf)!r}, "w").close()
            sum(range(10**12))
    """
    plugins.add("deaf", changes=changes)
    worker = start("deaf")
    load(worker, tmp_path)
    ids = worker.generate(GenerationRequest(prompt_ids=[1], max_new_tokens=5))
    assert next(ids) == 1
    assert wait_until(deaf.exists)
    ids.close()
    assert not worker.alive


def test_a_hang_between_tokens_is_noticed(plugins, tmp_path, monkeypatch):
    monkeypatch.setenv("PHI3_TOKEN_LIMIT", "0.5")
    plugins.add("deaf", changes="@hookimpl\ndef generate(engine, request):\n    yield 1\n    sum(range(10**12))\n")
    worker = start("deaf")
    load(worker, tmp_path)
    with pytest.raises(BackendError, match="did not answer 'generate' within 0.5 s"):
        list(worker.generate(GenerationRequest(prompt_ids=[1], max_new_tokens=5)))
    assert not worker.alive


def test_the_worker_is_the_process_that_was_started(plugins, tmp_path):
    """In a virtual environment on Windows, python.exe only starts another process."""
    plugins.add("parrot", changes="import os, sys; print(os.getpid(), sys.prefix, flush=True)")
    worker = start("parrot")
    load(worker, tmp_path)
    assert wait_until(lambda: worker.last_lines)
    assert worker.last_lines == (f"{worker._process.pid} {sys.prefix}",)
    worker.close()


@pytest.mark.skipif(sys.platform == "win32", reason="its processes inherit no handle by default")
def test_the_death_of_a_worker_is_noticed_while_a_child_of_it_lives(plugins):
    changes = """
        import os, time
        if not os.fork():
            time.sleep(60)
        os._exit(7)
    """
    plugins.add("parent", changes=changes)
    worker = start("parent")
    begun = time.monotonic()
    with pytest.raises(BackendDiedError, match="exit code 7"):
        worker.call("detect", limit_s=LIMIT_S, machine=this_machine())
    assert time.monotonic() - begun < 20


@pytest.mark.skipif(sys.platform == "win32", reason="handles of Windows are not numbered")
def test_a_host_without_standard_streams_has_an_answer(plugins, tmp_path):
    plugins.add("parrot")
    script = f"""
from phi3_core.plugin import installed
from phi3_core.worker.host import Worker
worker = Worker().open(installed()[0][0])
with open({str(tmp_path / "hooks")!r}, "w") as file:
    file.write(" ".join(worker.hooks))
worker.close()
"""
    subprocess.run(["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, script], check=True, timeout=60)
    assert (tmp_path / "hooks").read_text(encoding="utf-8") == "detect generate load quantize"


HOST = """
import sys, time
from phi3_core.plugin import installed
from phi3_core.worker.host import Worker
(backend,) = [b for b in installed()[0] if b.name == "busy"]
worker = Worker().open(backend)
print(worker._process.pid, flush=True)
{then}
"""


@pytest.mark.parametrize("busy", ["import time; time.sleep(600)", "sum(range(10**13))"], ids=["idle", "holds-the-lock"])
@pytest.mark.parametrize("end", ["kill", "exit", "exception"])
def test_no_worker_outlives_its_host(plugins, busy, end):
    if end == "kill" and sys.platform == "darwin" and "sum" in busy:
        pytest.skip("macOS has no way to end a process that holds the interpreter's lock")
    plugins.add("busy", changes=busy)
    then = {"kill": "time.sleep(600)", "exit": "", "exception": "raise RuntimeError"}[end]
    with subprocess.Popen(
        [sys.executable, "-c", HOST.format(then=then)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as host:
        pid = int(host.stdout.readline())
        if end == "kill":
            time.sleep(0.5)  # the worker is to be inside the plugin
            host.kill()
        host.wait(20)
    assert wait_until(lambda: gone(pid)), "the worker is still there"


@pytest.mark.skipif(sys.platform == "win32", reason="forking is for POSIX")
def test_no_worker_outlives_its_host_with_a_fork_of_it(plugins):
    plugins.add("busy", changes="import time; time.sleep(600)")
    then = "time.sleep(600 if os.fork() else 30)"
    with subprocess.Popen(
        [sys.executable, "-c", f"import os\n{HOST.format(then=then)}"], stdout=subprocess.PIPE, text=True
    ) as host:
        pid = int(host.stdout.readline())
        time.sleep(0.5)
        host.kill()
        assert wait_until(lambda: gone(pid), 15), "the worker is still there"


@pytest.mark.skipif(sys.platform == "win32", reason="forking is for POSIX")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_of_the_host_leaves_the_worker_alone(parrot):
    child = os.fork()
    if child == 0:
        try:
            parrot.kill()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert list(parrot.generate(GenerationRequest(prompt_ids=[5], max_new_tokens=1))) == [5]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send to a group")
def test_the_consoles_signal_does_not_reach_the_worker(parrot):
    process = psutil.Process(parrot._process.pid)
    assert os.getpgid(process.pid) != os.getpgid(0)
    process.send_signal(signal.SIGINT)
    assert list(parrot.generate(GenerationRequest(prompt_ids=[5], max_new_tokens=1))) == [5]


def test_warnings_that_a_plugin_logs_reach_the_user(plugins, tmp_path, caplog):
    changes = """
        import logging
        @hookimpl
        def load(artifact, device, options):
            logging.getLogger("phi3_core.plugins").warning("the cache is %s", "read-only")
            return Engine()
    """
    plugins.add("parrot", changes=changes)
    worker = start("parrot")
    load(worker, tmp_path)
    worker.close()
    assert [record.getMessage() for record in caplog.records] == ["parrot: the cache is read-only"]


def test_a_file_in_the_current_folder_does_not_shadow_a_module(parrot, plugins, tmp_path, monkeypatch):
    if sys.version_info < (3, 11):
        pytest.skip("Python 3.10 has no way to leave the current folder out of the module search path")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "faulthandler.py").write_text("raise RuntimeError", encoding="utf-8")
    monkeypatch.chdir(elsewhere)
    worker = start("parrot")
    load(worker, tmp_path)
    worker.close()

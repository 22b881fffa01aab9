"""Engines announce themselves to ``phi3 top`` while they are loaded, whoever has loaded them."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import phi3_core as phi3
import psutil
from batching import paced, wait_until
from phi3_core.activity import running
from phi3_core.activity.overview import Observer
from phi3_core.activity.running import running_engines

SLOW = paced(first_s=0.6, token_s=0.01)


def one():
    (found,) = running_engines()
    return found


def left():
    return list(running.folder().glob("*"))


def test_an_engine_says_what_it_is_and_what_it_does_until_it_is_closed(plugins, source):
    plugins.add("slow", changes=SLOW)
    with phi3.load(source, device="slow") as model:
        wait_until(running_engines)
        found = one()
        assert (found.process, found.model, found.device) == (model.process, model.name, "slow:CPU")
        assert (found.kind, found.name, found.precision, found.backend) == ("cpu", "A parrot", "fp16", "phi3-slow 1.0")
        assert (found.context_length, found.max_concurrency) == (model.context_length, 1)
        assert (found.state, found.running, found.answers, found.tokens, found.tokens_per_s) == ("idle", 0, 0, 0, None)
        observer = Observer()
        assert [row.activity.engine_cpu for row in observer.look().engines] == [None]  # nothing has passed yet
        with model.stream("Hello world", max_new_tokens=2000) as stream:
            options = {"max_new_tokens": 1}
            waiting = threading.Thread(target=model.generate, args=("Hello",), kwargs=options, daemon=True)
            threading.Thread(target=list, args=(stream,), daemon=True).start()
            wait_until(lambda: one().state == "reading")
            waiting.start()
            wait_until(lambda: one().waiting == 1)
            wait_until(lambda: one().state == "generating")
            wait_until(lambda: (one().tokens_per_s or 0) > 10)
            assert (one().running, one().answers) == (1, 0)
        waiting.join(60)
        wait_until(lambda: one().state == "idle")
        found = one()
        assert (found.answers, found.running, found.waiting, found.tokens_per_s) == (2, 0, 0, None)
        assert found.tokens > 10
        overview = observer.look()
        (row,) = overview.engines
        assert row.engine.process == model.process != os.getpid()
        assert row.activity.engine_cpu is not None
        assert 0 <= row.activity.engine_cpu <= (overview.machine.cpu or 0) + 0.2  # times come in steps
        assert 10**6 < (row.activity.memory_bytes or 0) < overview.memory_used_bytes < overview.memory_bytes
    assert (running_engines(), left(), observer.look().engines) == ((), [], ())


def test_it_is_gone_with_an_engine_that_nobody_closes(plugins, source):
    plugins.add("parrot")
    model = phi3.load(source, device="parrot")
    wait_until(running_engines)
    del model
    gc.collect()
    wait_until(lambda: not left())


def test_it_is_gone_with_an_engine_that_dies_and_the_next_one_is_there(plugins, source):
    plugins.add("frail", changes="@hookimpl\ndef generate(request):\n    import os\n    yield 5\n    os._exit(9)\n")
    plugins.add("stout")
    with phi3.load(source) as model:
        wait_until(running_engines)
        assert one().device == "frail:CPU"
        assert model.generate("Hello", max_new_tokens=3).attempts[-1].device == "stout:CPU"
        wait_until(lambda: [found.device for found in running_engines()] == ["stout:CPU"])


def test_a_killed_host_leaves_a_file_that_is_recognized(plugins, source):
    """The worker ends with its host, and nobody is there to remove the file."""
    plugins.add("parrot")
    code = (
        "import sys, time, phi3_core\n"
        f"model = phi3_core.load({source!r}, device='parrot')\n"
        "from phi3_core.activity.running import running_engines\n"
        "while not running_engines(): time.sleep(0.01)\n"
        "print(model.process, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        worker = int(host.stdout.readline())
        assert one().process == worker
        host.kill()
    wait_until(lambda: not psutil.pid_exists(worker))
    assert running_engines() == ()
    assert left() == []


def test_a_store_that_cannot_be_written_costs_no_answer(plugins, source, home):
    plugins.add("parrot")
    home.mkdir(parents=True, exist_ok=True)
    (home / "running").write_text("in the way", encoding="utf-8")
    with phi3.load(source, device="parrot") as model:
        assert model.generate("Hello").text.strip() == "Hello"
    assert running_engines() == ()

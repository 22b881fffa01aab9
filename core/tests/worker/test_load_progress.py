"""What ``load`` tells of its progress: who hears it, and what it does to the time limit."""

from __future__ import annotations

import phi3_core as phi3
import pytest
from phi3_core.errors import BackendError
from phi3_core.plugin import installed
from phi3_core.values import Artifact, Device, GenerationRequest
from phi3_core.worker.host import Worker

CPU = Device(backend="teller", id="CPU", kind="cpu", name="x")
TELLING = """
    @hookimpl
    def load(artifact, progress):
        for done in range(3):
            progress("reading layers", done, 3)
        return Engine()
"""
SLOW = """
    import time
    @hookimpl
    def load(artifact, progress):
        for done in range(16):
            time.sleep(0.25)
            {told}
        return Engine()
"""
TELLING_LATER = """
    told = []
    @hookimpl
    def load(artifact, progress):
        told.append(progress)
        return Engine()

    @hookimpl
    def generate(engine, request):
        for token in request.prompt_ids:
            told[0]("still loading", token, 9)
            yield token
"""
HEARD = [("reading layers", done, 3) for done in range(3)]


@pytest.fixture
def start(plugins):
    """A worker with a backend that is changed so."""

    def start(changes):
        plugins.add("teller", changes=changes)
        (backend,) = [backend for backend in installed()[0] if backend.name == "teller"]
        return Worker().open(backend)

    return start


def load(worker, folder, limit_s=30.0, progress=None):
    artifact = Artifact(path=folder, backend="teller", precision="fp16")
    given = {"artifact": artifact, "device": CPU, "options": {}, "purpose": "answer"}
    assert worker.hooks  # its import has a limit of its own
    return worker.call("load", limit_s=limit_s, progress=progress, **given)


def test_the_host_hears_it(start, tmp_path):
    heard = []
    with start(TELLING) as worker:
        load(worker, tmp_path, progress=lambda *news: heard.append(news))
    assert heard == HEARD


def test_it_restarts_the_time_limit(start, tmp_path):
    with start(SLOW.format(told="progress('compiling')")) as worker:
        assert load(worker, tmp_path, limit_s=3.0)["context_length"] == 64


def test_in_silence_the_time_limit_ends_it(start, tmp_path):
    with start(SLOW.format(told="pass")) as worker, pytest.raises(BackendError, match="did not answer 'load' within"):
        load(worker, tmp_path, limit_s=1.5)


def test_what_is_told_after_its_end_belongs_to_no_other_call(start, tmp_path):
    with start(TELLING_LATER) as worker:
        load(worker, tmp_path)
        answer = worker.start(GenerationRequest(prompt_ids=[4, 5, 6], max_new_tokens=3))
        assert list(answer.ids()) == [4, 5, 6]


def test_users_hear_it(plugins, source):
    plugins.add("teller", changes=TELLING)
    heard = []
    with phi3.load(source, device="teller:CPU", progress=lambda *news: heard.append(news)):
        assert [news for news in heard if news[0] == "reading layers"] == HEARD

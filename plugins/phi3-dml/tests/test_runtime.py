"""What the installed runtime reports, asked in real processes that answer, fail, die and hang."""

from __future__ import annotations

import sys
import textwrap

import pytest
from phi3_dml import flavours, runtime
from phi3_dml.catalogue import Entry
from phi3_dml.runtime import Reported


def probe(tmp_path, body):
    """A command whose process reports as the real one does, and does ``body``."""
    file = tmp_path / "probe.py"
    file.write_text(
        "import os, sys, time\nfrom phi3_dml.adapters.windows_probe import execute\n" + textwrap.dedent(body),
        encoding="utf-8",
    )
    return [sys.executable, str(file)]


@pytest.mark.runs
def test_the_installed_runtime():
    reported = runtime.read(limit_s=60)
    installed = flavours.installed()
    assert (reported.package, reported.version) == (installed.genai[0].name, installed.version)
    assert reported.directml is (installed.flavour in {"directml", "winml"})
    assert reported.failure == reported.catalogue_failure == ""


def test_the_catalogue_is_read_when_it_is_asked_for(tmp_path):
    command = probe(
        tmp_path,
        """
        found = {"package": "onnxruntime-genai-winml", "version": "0.18.0", "directml": True}
        entries = [{"name": "QNNExecutionProvider", "version": "2.0", "package": "A.Package", "state": "Ready"}]
        execute([("runtime", lambda: found), ("catalogue", lambda: entries)], sys.argv[1:])
        """,
    )
    told = Reported(package="onnxruntime-genai-winml", version="0.18.0", directml=True)
    assert runtime.read(command=command, limit_s=60) == told
    reported = runtime.read(catalogue=True, command=command, limit_s=60)
    assert reported.catalogue == (
        Entry(name="QNNExecutionProvider", version="2.0", package="A.Package", state="Ready"),
    )


@pytest.mark.parametrize(
    ("act", "failure"),
    [
        ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("os._exit(3)", "crashed (3)"),
    ],
)
def test_a_runtime_that_fails(tmp_path, act, failure):
    command = probe(
        tmp_path,
        f"""
        def runtime():
            {act}

        execute([("runtime", runtime)], sys.argv[1:])
        """,
    )
    assert runtime.read(command=command, limit_s=60) == Reported(failure=failure)


def test_a_runtime_that_is_slow_is_no_failure(tmp_path):
    command = probe(tmp_path, 'execute([("runtime", lambda: time.sleep(60))], sys.argv[1:])')
    assert runtime.read(command=command, limit_s=1) == Reported()


def test_a_catalogue_that_dies_leaves_what_the_runtime_said(tmp_path):
    command = probe(
        tmp_path,
        """
        found = {"package": "onnxruntime-genai-winml", "version": "0.18.0", "directml": True}
        execute([("runtime", lambda: found), ("catalogue", lambda: os._exit(3))], sys.argv[1:])
        """,
    )
    reported = runtime.read(catalogue=True, command=command, limit_s=60)
    assert reported.directml is True
    assert reported.catalogue_failure == "crashed (3)"

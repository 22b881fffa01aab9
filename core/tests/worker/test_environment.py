"""The environment that a worker gets beside the host's."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest
from batching import wait_until
from phi3_core.machine import this_machine
from phi3_core.plugin import installed
from phi3_core.worker.host import Worker

VARIABLE = "GLIBC_TUNABLES"
SETTING = "glibc.malloc.hugetlb"


@pytest.fixture
def printed(plugins, monkeypatch):
    """What a plugin prints in a worker, as it is imported, with so much in the host's variable."""

    def run(given, source):
        monkeypatch.delenv(VARIABLE, raising=False)
        if given:
            monkeypatch.setenv(VARIABLE, given)
        plugins.add("parrot", changes=source)
        (backend,) = (backend for backend in installed()[0] if backend.name == "parrot")
        worker = Worker().open(backend)
        try:
            worker.call("detect", limit_s=30.0, machine=this_machine())
            wait_until(lambda: worker.last_lines)
            (line,) = worker.last_lines
        finally:
            worker.close()
        return line

    return run


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting")
@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (None, f"{SETTING}=1"),
        ("glibc.malloc.arena_max=2", f"glibc.malloc.arena_max=2:{SETTING}=1"),
        (f"{SETTING}=0", f"{SETTING}=0"),
    ],
)
def test_a_worker_asks_for_large_pages_unless_the_user_decides(printed, given, asked):
    assert printed(given, f"import os; print(os.environ[{VARIABLE!r}], flush=True)") == asked


def can_ask_for_large_pages():
    """Whether memory is in large pages if, and only if, a process asks for them."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    library, version = platform.libc_ver()
    new = library == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)
    return new and setting.is_file() and "[madvise]" in setting.read_text(encoding="ascii")


@pytest.mark.skipif(not can_ask_for_large_pages(), reason="Linux gives none, or to everybody")
@pytest.mark.parametrize(("given", "large"), [(None, True), (f"{SETTING}=0", False)])
def test_large_blocks_are_in_large_pages(printed, given, large):
    source = """
        block = bytearray(64 << 20)
        block[::4096] = bytes(len(block[::4096]))
        rows = open("/proc/self/smaps_rollup").read().splitlines()
        print(next(row.split()[1] for row in rows if row.startswith("AnonHugePages")), flush=True)
    """
    assert (int(printed(given, source)) >= 32 << 10) == large

"""Memory for the KV cache is taken in small pages, also where core has asked glibc for large ones."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import psutil
from phi3_openvino.paged_memory import reserve

memory = reserve(64 * 2**20)
before = psutil.Process().memory_info().rss
memory[:: 2 * 2**20] = 1
print(psutil.Process().memory_info().rss - before, memory.sum())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing asks for large pages")
def test_a_page_is_taken_for_each_place_that_is_written():
    surroundings = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=surroundings, capture_output=True, text=True, check=True, timeout=60
    )
    taken, total = map(int, ran.stdout.split())
    assert total == 32
    assert 0 < taken < 2**20

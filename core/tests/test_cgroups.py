"""Limits of control groups: file systems as Linux shows them in containers and outside, and a real group."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import psutil
import pytest
from phi3_core import cgroups
from phi3_core.cgroups import memory_available, memory_limit, processor_quota, processors

NO_LIMIT = "9223372036854771712"
"""What version 1 writes where there is none."""
V2 = "35 25 0:30 {root} {mounted} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1_MEMORY = "36 25 0:31 {root} {mounted} rw,nosuid shared:10 - cgroup cgroup rw,memory"
V1_CPU = "37 25 0:32 {root} {mounted} rw,nosuid shared:11 - cgroup cgroup rw,cpu,cpuacct"


@pytest.fixture
def system(tmp_path):
    """Writes the files of a Linux: this process's groups, the mounts, and files by their paths."""

    def make(groups: str, mounts: list[str], files: dict[str, str]) -> Path:
        for name, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": "\n".join(mounts), **files}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text + "\n", encoding="ascii")
        return tmp_path

    return make


def test_no_limit(system, tmp_path):
    assert memory_limit(tmp_path / "nowhere") is None
    assert memory_available(tmp_path / "nowhere") is None
    assert processor_quota(tmp_path / "nowhere") is None
    mounts = [V2.format(root="/", mounted="/sys/fs/cgroup")]
    files = {"memory.max": "max", "memory.high": "max", "memory.current": "5", "cpu.max": "max 100000"}
    root = system("0::/a", mounts, {f"sys/fs/cgroup/a/{name}": text for name, text in files.items()})
    assert (memory_limit(root), memory_available(root), processor_quota(root)) == (None, None, None)


def test_version_2_in_a_container(system):
    """The group's namespace: the container's group is the root that it sees."""
    files = {
        "memory.max": "4000000000",
        "memory.high": "max",
        "memory.current": "1500000000",
        "cpu.max": "150000 100000",
        "memory.stat": "anon 900000000\nfile 600000000\ninactive_file 500000000",
    }
    root = system(
        "0::/",
        [V2.format(root="/", mounted="/sys/fs/cgroup")],
        {f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    )
    assert memory_limit(root) == 4_000_000_000
    assert memory_available(root) == 3_000_000_000
    assert processor_quota(root) == 1.5


def test_the_smallest_limit_of_the_groups_above_counts(system):
    root = system(
        "0::/user.slice/user-0.slice/run.scope",
        [V2.format(root="/", mounted="/sys/fs/cgroup")],
        {
            "sys/fs/cgroup/user.slice/memory.max": "3000000000",
            "sys/fs/cgroup/user.slice/memory.current": "2900000000",
            "sys/fs/cgroup/user.slice/cpu.max": "50000 100000",
            "sys/fs/cgroup/user.slice/user-0.slice/memory.max": "max",
            "sys/fs/cgroup/user.slice/user-0.slice/run.scope/memory.max": "8000000000",
            "sys/fs/cgroup/user.slice/user-0.slice/run.scope/memory.current": "100000000",
            "sys/fs/cgroup/user.slice/user-0.slice/run.scope/cpu.max": "400000 100000",
            "sys/fs/cgroup/another.slice/memory.max": "1000",
        },
    )
    assert memory_limit(root) == 3_000_000_000
    assert memory_available(root) == 100_000_000
    assert processor_quota(root) == 0.5


def test_the_limit_above_which_a_process_is_slowed_down_counts(system):
    folder = "sys/fs/cgroup/a"
    root = system(
        "0::/a",
        [V2.format(root="/", mounted="/sys/fs/cgroup")],
        {f"{folder}/memory.max": "max", f"{folder}/memory.high": "2000", f"{folder}/memory.current": "3000"},
    )
    assert memory_limit(root) == 2000
    assert memory_available(root) == 0


def test_version_1_in_a_container_without_a_namespace(system):
    """The path is the host's, and the container's group is what is mounted."""
    path = "/kubepods/burstable/pod-1/0a1b"
    root = system(
        f"11:memory:{path}\n4:cpu,cpuacct:{path}\n1:name=systemd:{path}",
        [
            V1_MEMORY.format(root=path, mounted="/sys/fs/cgroup/memory"),
            V1_CPU.format(root=path, mounted="/sys/fs/cgroup/cpu,cpuacct"),
        ],
        {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "6000000000",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "2000000000",
            "sys/fs/cgroup/memory/memory.stat": "hierarchical_memory_limit 5000000000\ntotal_inactive_file 1000000000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
    )
    assert memory_limit(root) == 5_000_000_000  # of a group that the container does not see
    assert memory_available(root) == 4_000_000_000
    assert processor_quota(root) == 2.0


def test_version_1_without_limits(system):
    folder = "sys/fs/cgroup/memory"
    root = system(
        "4:memory:/\n3:cpu,cpuacct:/",
        [V1_MEMORY.format(root="/", mounted=f"/{folder}"), V1_CPU.format(root="/", mounted="/sys/fs/cgroup/cpu")],
        {
            f"{folder}/memory.limit_in_bytes": NO_LIMIT,
            f"{folder}/memory.usage_in_bytes": "1",
            f"{folder}/memory.stat": f"hierarchical_memory_limit {NO_LIMIT}",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
    )
    assert (memory_limit(root), memory_available(root), processor_quota(root)) == (None, None, None)


def test_both_versions_at_once(system):
    """As systemd's hybrid layout: version 2 is mounted without the controllers, which version 1 has."""
    root = system(
        "4:memory:/a\n0::/a",
        [
            V1_MEMORY.format(root="/", mounted="/sys/fs/cgroup/memory"),
            V2.format(root="/", mounted="/sys/fs/cgroup/unified"),
        ],
        {
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "7000",
            "sys/fs/cgroup/unified/a/cgroup.procs": "",
        },
    )
    assert memory_limit(root) == 7000


@pytest.mark.parametrize("path", ["/../../user.slice/x", "/elsewhere"])
def test_a_path_outside_of_what_is_mounted(system, path):
    mounts = [V2.format(root="/docker/1", mounted="/sys/fs/cgroup")]
    assert memory_limit(system(f"0::{path}", mounts, {"sys/fs/cgroup/memory.max": "9000"})) == 9000


def test_a_mount_point_with_a_space(system):
    mounts = [V2.format(root="/", mounted=r"/mnt/control\040groups")]
    assert memory_limit(system("0::/", mounts, {"mnt/control groups/memory.max": "9000"})) == 9000


def test_a_quota_is_rounded_up_to_whole_processors(monkeypatch):
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for quota, expected, limit in (
        (0.2, 1, 1),
        (1.0, 1, 1),
        (2.5, 3, 3),
        (8.0, 8, None),
        (64.0, 8, None),
        (None, 8, None),
    ):
        monkeypatch.setattr(cgroups, "processor_quota", lambda quota=quota: quota)
        assert (processors(), cgroups.thread_limit()) == (expected, limit)


@pytest.mark.parametrize(("usable", "cores", "expected"), [(8, 4, 4), (2, 4, 2), (8, None, 8)])
def test_threads_are_cores_that_may_be_used(monkeypatch, usable, cores, expected):
    monkeypatch.setattr(cgroups, "processors", lambda: usable)
    monkeypatch.setattr(psutil, "cpu_count", lambda *, logical: cores)
    assert cgroups.core_threads() == expected


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is set as Linux does it")
def test_processors_that_are_excluded_do_not_count():
    script = """
        import os
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        from phi3_core.cgroups import processors
        print(processors())
    """
    assert subprocess.check_output([sys.executable, "-c", textwrap.dedent(script)], text=True).strip() == "1"


@pytest.fixture
def limited(request):
    """Returns a prefix that runs a command in a new group, below one with a limit of 2 GB and half a processor."""
    limits = {"memory": {"memory.limit_in_bytes": "2000000000"}, "cpu": {"cpu.cfs_quota_us": "50000"}}
    tops = [Path("/sys/fs/cgroup", name) for name in limits]
    if not all((top / "cgroup.procs").is_file() for top in tops):
        limits, tops = {"": {"memory.max": "2000000000", "cpu.max": "50000 100000"}}, [Path("/sys/fs/cgroup")]
    made = []
    entered = []
    try:
        for top, files in zip(tops, limits.values(), strict=True):
            group = top / f"phi3-test-{uuid.uuid4().hex}"
            group.mkdir()
            made.append(group)
            for name, text in files.items():
                (group / name).write_text(text, encoding="ascii")
            (group / "inner").mkdir()
            made.append(group / "inner")
            entered.append(group / "inner" / "cgroup.procs")
    except OSError:
        for group in reversed(made):
            group.rmdir()
        pytest.skip("this system does not allow making control groups")
    enter = "; ".join(f"echo $$ > {file}" for file in entered)
    yield ["sh", "-c", f'{enter}; exec "$@"', "sh"]
    for group in reversed(made):
        group.rmdir()


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux'")
def test_a_real_group(limited):
    script = """
        from phi3_core import cgroups, machine
        print(machine.this_machine().memory_bytes, cgroups.processors(), cgroups.processor_quota())
        print(cgroups.memory_available())
    """
    found = subprocess.check_output([*limited, sys.executable, "-c", textwrap.dedent(script)], text=True).split()
    assert abs(int(found[0]) - 2_000_000_000) < 1 << 16  # whole pages
    assert found[1:3] == ["1", "0.5"]
    assert 1_000_000_000 < int(found[3]) < 2_000_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux'")
def test_a_worker_that_the_system_killed_for_its_memory_says_so(limited, plugins, monkeypatch):
    monkeypatch.setenv("PHI3_DETECT_LIMIT", "240")  # with half a processor, it takes a while to fill 2 GB
    plugins.add(
        "hungry",
        changes="""
        @hookimpl
        def detect(machine):
            return [b"x" * (3 << 30)]
    """,
    )
    done = subprocess.run(
        [*limited, sys.executable, "-m", "phi3_core", "devices", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "SIGKILL; its memory is limited to 2.0 GB" in done.stdout + done.stderr

"""The limits that Linux' control groups set to this process, as in containers, batch systems and systemd's units.

Both versions of control groups may be mounted at once. A process belongs to one group of each hierarchy; the limits of
all the groups above it count too, as far as this process can see them. https://docs.kernel.org/admin-guide/cgroup-v2.html
and https://docs.kernel.org/admin-guide/cgroup-v1/memory.html describe the files.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
# Version 1 writes "no limit" as the largest number of whole pages.
_NO_LIMIT = 1 << 60
_V1, _V2 = "cgroup", "cgroup2"


def memory_limit(root: Path = ROOT) -> int | None:
    """Return the number of bytes of memory that this process may use; None if there is no limit.

    Args:
        root: the root of the file system, for tests.
    """
    limits = (_memory_limit(version, group) for version, group in _groups("memory", root))
    return min((limit for limit in limits if limit is not None), default=None)


def memory_available(root: Path = ROOT) -> int | None:
    """Return the number of bytes left below the limits; None if there is no limit. Cached files do not count as used.

    Args:
        root: the root of the file system, for tests.
    """
    left = []
    for version, group in _groups("memory", root):
        limit = _memory_limit(version, group)
        usage = _number(group / ("memory.current" if version == _V2 else "memory.usage_in_bytes"))
        if limit is not None and usage is not None:
            cached = _pairs(group / "memory.stat").get("inactive_file" if version == _V2 else "total_inactive_file", 0)
            left.append(max(0, limit - max(0, usage - cached)))
    return min(left, default=None)


def processor_quota(root: Path = ROOT) -> float | None:
    """Return the number of processors whose time this process may use; None if there is no limit.

    Processors that a group excludes altogether (``cpuset``) are not counted by ``os.sched_getaffinity`` either.

    Args:
        root: the root of the file system, for tests.
    """
    quotas = []
    for version, group in _groups("cpu", root):
        if version == _V2:
            words = _words(group / "cpu.max")
        else:
            words = [*_words(group / "cpu.cfs_quota_us"), *_words(group / "cpu.cfs_period_us")]
        with contextlib.suppress(ValueError):
            quota, period = map(int, words)  # "max" and a negative quota are no limits
            if quota > 0 and period > 0:
                quotas.append(quota / period)
    return min(quotas, default=None)


def processors() -> int:
    """Return the number of threads that can compute at once: processors that this process may use, or its quota."""
    # Since Python 3.13; it can be set by the user.
    count: Callable[[], int | None] | None = getattr(os, "process_cpu_count", None)
    usable = count() if count else len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    quota = processor_quota()
    return max(1, min(usable or 1, math.ceil(quota) if quota is not None else usable or 1))


def thread_limit() -> int | None:
    """Return the number of threads for a runtime that counts the machine's processors itself.

    Returns:
        :func:`processors`; None if this process may use all of the machine's, so that the runtime may choose.
    """
    found = processors()
    return found if found < (os.cpu_count() or 1) else None


def core_threads() -> int:
    """Return the number of threads for a runtime that counts cores wrongly: cores that this process may use."""
    import psutil  # start-up: only workers need it

    found = processors()
    return min(found, psutil.cpu_count(logical=False) or found)


def _memory_limit(version: str, group: Path) -> int | None:
    if version == _V2:
        # Above "high" processes are slowed down until they give memory back.
        found = [_number(group / "memory.max"), _number(group / "memory.high")]
    else:
        # The second one has the limits of groups above that cannot be seen from inside a container.
        found = [
            _number(group / "memory.limit_in_bytes"),
            _pairs(group / "memory.stat").get("hierarchical_memory_limit"),
        ]
    return min((limit for limit in found if limit is not None and limit < _NO_LIMIT), default=None)


def _groups(controller: str, root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the folders of this process's groups that may limit what ``controller`` controls, with their version."""
    paths = _paths(controller, root)
    for version, top, mounted in _mounts(controller, root):
        path = paths.get(version)
        if path is None:
            continue
        top_path = PurePosixPath(top)
        # A path outside of what is mounted is one of the host's, seen from a container.
        inside = path.relative_to(top_path) if path.is_relative_to(top_path) else PurePosixPath()
        group = mounted / inside if ".." not in inside.parts else mounted
        yield version, group
        for _ in inside.parts if group != mounted else ():
            group = group.parent
            yield version, group


def _paths(controller: str, root: Path) -> dict[str, PurePosixPath]:
    """Return the path of this process's group in the hierarchy of each version."""
    found = {}
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found[_V2] = PurePosixPath(path)
        elif controller in controllers.split(","):
            found[_V1] = PurePosixPath(path)
    return found


def _mounts(controller: str, root: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield the version of each hierarchy that may have the controller, the group that is mounted, and where."""
    for line in _lines(root / "proc/self/mountinfo"):
        mount, _, system = line.partition(" - ")
        fields, kinds = mount.split(), system.split()
        if len(fields) < 5 or len(kinds) < 3:
            continue
        if kinds[0] == _V2 or (kinds[0] == _V1 and controller in kinds[2].split(",")):
            place = root / _unescape(fields[4]).lstrip("/")
            yield kinds[0], _unescape(fields[3]), place


def _unescape(text: str) -> str:
    r"""Return a path of ``mountinfo``, which writes spaces and the like as ``\040``."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def _number(file: Path) -> int | None:
    """Return the number in a file; None if there is none, as in ``max``."""
    words = _words(file)
    return int(words[0]) if words and words[0].isdecimal() else None


def _pairs(file: Path) -> dict[str, int]:
    """Return the lines of a file that are a name and a number."""
    pairs = (line.split() for line in _lines(file))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}

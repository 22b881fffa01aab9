"""Every connection and every write to files of a command and its child processes, as strace sees them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import field, frozen

_WRITES = ("open", "openat", "creat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "link", "linkat")
_OTHER_WRITES = ("symlink", "symlinkat", "unlink", "unlinkat", "rmdir", "truncate", "chmod", "fchmodat", "mknodat")
_NETWORK = ("connect", "sendto", "sendmsg", "sendmmsg")
_CALL = re.compile(r"(?:\[pid +\d+\] |\d+ +)?(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)(?P<why>.*)")
_UNFINISHED = re.compile(r"(?P<pid>\d+) +(?P<start>.*) <unfinished \.\.\.>")
_RESUMED = re.compile(r"(?P<pid>\d+) +<\.\.\. \w+ resumed>(?P<rest>.*)")
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<(?P<folder>[^>]*)>, )?"(?P<path>(?:[^"\\]|\\.)*)"')
# Variables that silence statistics, which a user's machine does not have.
_SILENCING = ("CI", "TF_BUILD", "JENKINS_URL", "DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "ORT_DISABLE_TELEMETRY")
NEEDS_STRACE = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("strace") is None, reason="needs strace, which only Linux has"
)


@frozen
class Seen:
    """What a command did."""

    code: int
    output: str
    connections: tuple[str, ...]
    """Addresses on the network that were connected or written to, this machine's own included."""
    writes: tuple[Path, ...] = field(repr=False)
    """What was made, changed, renamed or removed."""

    def outside(self, *folders: Path) -> list[Path]:
        """What was written outside of some folders and of the system's devices."""
        allowed = (*(folder.resolve() for folder in folders), Path("/dev"), Path("/proc"))
        return sorted({path for path in self.writes if not any(path.is_relative_to(folder) for folder in allowed)})


def trace(command: list[str | Path], log: Path, home: Path, **settings: str) -> Seen:
    """Run a command under strace.

    Args:
        command: what to run.
        log: a file for strace's output.
        home: the user's home folder; temporary files go elsewhere.
        settings: environment variables.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _SILENCING}
    environment |= {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", **settings}
    environment.pop("XDG_CACHE_HOME", None)
    calls = ",".join((*_WRITES, *_OTHER_WRITES, *_NETWORK))
    strace = ["strace", "-f", "-y", "-qq", "-s", "4096", "-e", f"trace={calls}", "-o", str(log)]
    done = subprocess.run(
        [*strace, *map(str, command)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=900,
        check=False,
    )
    connections, writes = [], []
    for name, arguments in _calls(log):
        if name in _NETWORK:
            if "sa_family=AF_INET" in arguments:
                connections.append(arguments)
        elif not name.startswith("open") or re.search("O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", arguments):
            paths = list(_PATH.finditer(arguments))
            for found in paths[-1:] if "link" in name else paths:  # what a link names is only read
                path = os.fsdecode(found["path"].encode().decode("unicode_escape").encode("latin-1"))
                writes.append(Path(os.path.normpath(Path(found["folder"] or "/", path))))
    return Seen(done.returncode, done.stdout.decode("utf-8", "replace"), tuple(connections), tuple(writes))


def _calls(log: Path) -> list[tuple[str, str]]:
    """The calls that succeeded, or that only the network prevented; another thread's may come between their halves."""
    begun: dict[str, str] = {}
    calls = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if half := _UNFINISHED.match(line):
            begun[half["pid"]] = half["start"]
            continue
        half = _RESUMED.match(line)
        whole = f"{half['pid']} {begun.pop(half['pid'], '')}{half['rest']}" if half else line
        if (call := _CALL.match(whole)) and (call["name"] in _NETWORK or not call["result"].startswith("-")):
            calls.append((call["name"], call["arguments"]))
    return calls

"""Permissions of the device files that drivers of GPUs and NPUs open, on Linux."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from attrs import frozen

from phi3_core.values import Finding

NODES = ("dev/accel/accel*", "dev/dri/renderD*")
"""The device files of NPUs and of GPUs that compute without a display."""
_ALLOWS_GROUP = stat.S_IRGRP | stat.S_IWGRP
_ROOT = 0


@frozen(kw_only=True)
class Node:
    """A device file."""

    path: str
    accessible: bool
    """Whether this process may read and write it."""
    group_id: int
    group: str | None
    """The name of the group that owns it; None if this system has no such group, as in containers."""
    allows_group: bool
    """Whether the group may read and write it."""
    is_member: bool
    """Whether the user belongs to the group by now, although the process may not."""

    def finding(self) -> Finding:
        """Return whether the user may use it, and what changes that."""
        owner = self.group or f"number {self.group_id}"
        if self.accessible:
            return Finding(severity="info", message=f"{self.path} may be read and written (group {owner})")
        return Finding(
            severity="warning",  # a backend that would drive the device makes it an error
            message=f"{self.path} may not be read and written: {self._reason(owner)}",
            remedy=self._remedy(),
        )

    def _reason(self, owner: str) -> str:
        if not self.allows_group:
            return f"its group {owner} may not either"
        if self.is_member:
            return f"the user is in the group {owner}, but this session is older than that"
        return f"the user is not in the group {owner}"

    def _remedy(self) -> str:
        if not self.allows_group or self.group_id == _ROOT:
            give = f"sudo chgrp render {self.path}, then sudo chmod g+rw {self.path}"
            return f"{give}, then sudo usermod -aG render $USER, then log out and in again"
        if self.group is None:
            return f"start the container with the group: docker run --group-add {self.group_id}"
        if self.is_member:
            return "log out and in again"
        return f"sudo usermod -aG {self.group} $USER, then log out and in again"


def findings(system: str, nodes: Collection[Node]) -> Iterator[Finding]:
    """Yield whether the user may use the device files.

    Args:
        system: the system, as in :class:`~phi3_core.values.Machine`.
        nodes: the device files; empty on other systems than Linux.
    """
    if system != "linux":
        name = {"windows": "Windows", "macos": "macOS"}.get(system, system)
        message = f"permissions of device files do not apply: {name} gives every user access to GPUs and NPUs"
        yield Finding(severity="info", message=message)
    elif not nodes:
        message = "there is no /dev/accel/accel* and no /dev/dri/renderD*: no driver of an NPU or a GPU is loaded"
        remedy = "in a container, pass them in: docker run --device /dev/dri --device /dev/accel"
        yield Finding(severity="info", message=message, remedy=remedy)
    yield from (node.finding() for node in nodes)


def read_nodes(root: Path = Path("/")) -> tuple[Node, ...]:
    """Return the device files of this machine.

    Args:
        root: the root of the file system, for tests.
    """
    found: list[Node] = []
    if sys.platform == "linux":
        for pattern in NODES:
            for file in sorted(root.glob(pattern)):
                with contextlib.suppress(OSError):  # it is being removed
                    found.append(_read(file, f"/{file.relative_to(root).as_posix()}"))
    return tuple(found)


def _read(file: Path, path: str) -> Node:
    status = file.stat()
    group, is_member = _group(status.st_gid)
    return Node(
        path=path,
        # The effective user counts, where os.access supports it.
        accessible=os.access(file, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids),
        group_id=status.st_gid,
        group=group,
        allows_group=status.st_mode & _ALLOWS_GROUP == _ALLOWS_GROUP,
        is_member=is_member,
    )


def _group(number: int) -> tuple[str | None, bool]:
    """Return the name of a group, and whether the user belongs to it."""
    if sys.platform == "win32":  # for type checkers: the modules exist on POSIX systems only
        return None, False
    import grp
    import pwd

    try:
        group = grp.getgrgid(number)
    except KeyError:
        return None, number in os.getgroups()
    try:
        user = pwd.getpwuid(os.geteuid())
    except KeyError:  # a user without a name, as in some containers
        return group.gr_name, number in os.getgroups()
    return group.gr_name, user.pw_name in group.gr_mem or user.pw_gid == number

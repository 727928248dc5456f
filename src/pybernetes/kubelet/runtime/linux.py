"""What a container runtime needs to know of this machine, and the few system calls for it.

Answers are facts found by looking or trying, never guesses from version numbers.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24

# mount(2), umount2(2)
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8

# cgroup controllers without which resource limits are not kept.
NEEDED_CONTROLLERS = ("cpu", "memory", "pids")


class CgroupMode(Enum):
    V1 = "v1"
    """Controllers in hierarchies of their own; an empty v2 tree beside them changes nothing."""
    V2 = "v2"
    NONE = "none"
    """Not mounted, not complete, or not writable."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides how containers can be run here."""

    is_root: bool
    can_raise_priority: bool
    """CAP_SYS_RESOURCE: an oom_score_adj may be lowered."""
    cgroups: CgroupMode
    has_systemd: bool


@dataclass(frozen=True, slots=True)
class MountPoint:
    path: str
    kind: str
    options: frozenset[str]


def look_at_machine() -> Machine:
    return Machine(
        is_root=os.geteuid() == 0 and has_capability(CAP_SYS_ADMIN),
        can_raise_priority=has_capability(CAP_SYS_RESOURCE),
        cgroups=cgroup_mode(),
        # What sd_booted(3) looks at.
        has_systemd=Path("/run/systemd/system").is_dir(),
    )


def has_capability(number: int) -> bool:
    """Whether this process has a capability in its effective set."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value, 16) >> number & 1)
    return False


def mount_points() -> list[MountPoint]:
    """What is mounted in our mount namespace, in the order it was."""
    return [_parse_mount(line) for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def _parse_mount(line: str) -> MountPoint:
    front, _, back = line.partition(" - ")
    kind, _, super_options = back.split(" ", 2)
    path = front.split(" ")[4]
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(escape, character)
    return MountPoint(path, kind, frozenset(super_options.split(",")))


def cgroup_mode() -> CgroupMode:
    mounts = mount_points()
    v1 = {
        option: Path(mount.path)
        for mount in mounts
        if mount.kind == "cgroup"
        for option in mount.options
    }
    if any(controller in v1 for controller in NEEDED_CONTROLLERS):
        usable = all(os.access(v1.get(name, "/nowhere"), os.W_OK) for name in NEEDED_CONTROLLERS)
        return CgroupMode.V1 if usable else CgroupMode.NONE
    for mount in mounts:
        if mount.kind == "cgroup2":
            controllers = Path(mount.path, "cgroup.controllers").read_text().split()
            usable = set(NEEDED_CONTROLLERS) <= set(controllers) and os.access(mount.path, os.W_OK)
            return CgroupMode.V2 if usable else CgroupMode.NONE
    return CgroupMode.NONE


def cgroup_roots() -> list[Path]:
    """The top directory of every cgroup hierarchy."""
    return [Path(mount.path) for mount in mount_points() if mount.kind in ("cgroup", "cgroup2")]


def overlay_works(directory: Path) -> bool:
    """Try an overlay mount on the filesystem that would carry it."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="overlay-") as temporary:
        top = Path(temporary)
        for name in ("lower", "upper", "work", "merged"):
            (top / name).mkdir()
        options = f"lowerdir={top}/lower,upperdir={top}/upper,workdir={top}/work"
        merged = str(top / "merged")
        if _libc().mount(b"overlay", merged.encode(), b"overlay", 0, options.encode()) != 0:
            return False
        unmount(merged)
        return True


def unmount(path: str) -> None:
    """Detach a mount, busy or not. What is not mounted is fine."""
    _libc().umount2(path.encode(), _MNT_DETACH | _UMOUNT_NOFOLLOW)


def unmount_below(directory: Path) -> None:
    """Detach everything mounted at or below a directory, what was mounted last first."""
    prefix = f"{directory}/"
    found = [
        mount.path
        for mount in mount_points()
        if mount.path == str(directory) or mount.path.startswith(prefix)
    ]
    for path in reversed(found):
        unmount(path)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


# --- processes ------------------------------------------------------------------------------------


def arguments_of(pid: int) -> list[str]:
    """The command line of a process; empty if there is none, or it has ended."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [part.decode(errors="replace") for part in line.split(b"\0")[:-1]]


def processes() -> Iterator[tuple[int, list[str]]]:
    """Every process and its command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name), arguments_of(int(entry.name))


def descendants(pid: int) -> list[int]:
    """Children, their children and so on; parents before children."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        for task in _tasks(waiting.pop()):
            with suppress(OSError):
                children = [int(child) for child in (task / "children").read_text().split()]
                found += children
                waiting += children
    return found


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


class ProcessHandle:
    """One process, by a descriptor that cannot come to mean another one."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError if there is no such process."""
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    async def wait(self) -> None:
        """Return when it has ended, child of ours or not."""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def note() -> None:
            if not ended.done():
                ended.set_result(None)

        loop.add_reader(self._descriptor, note)
        try:
            await ended
        finally:
            loop.remove_reader(self._descriptor)
        self._reap()

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

"""What a cluster leaves on a machine: found while it runs, looked for when it should be gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

NETNS = Path("/run/netns")
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Traces:
    """What belongs to a running cluster outside its data directory."""

    # Processes, with their start time, so that a pid given to somebody else is not taken for one.
    processes: frozenset[tuple[int, str]]
    # Namespaces of its pods.
    namespaces: frozenset[str]
    cgroups: frozenset[Path]


def look(namespace: str, data_dir: Path) -> Traces:
    """Find them; start at what is known to be ours and follow the veth pairs to the pods."""
    netns = pod_namespaces(namespace)
    processes = processes_in({namespace, *netns}) | processes_naming(data_dir)
    return Traces(processes, netns, frozenset(_cgroups_of(processes)))


def left(before: Traces, namespace: str, data_dir: Path) -> list[str]:
    """What of it is still there, a line each."""
    found = [f"process {pid}: {command_of(pid)}" for pid, _ in _alive(before.processes)]
    now = processes_in({namespace}) | processes_naming(data_dir)
    found += [f"process {pid}: {command_of(pid)}" for pid, _ in now - before.processes]
    found += [f"network namespace {name}" for name in before.namespaces if (NETNS / name).exists()]
    found += [f"cgroup {path}" for path in before.cgroups if path.exists()]
    found += [f"mount {point}" for point in mounts_below(data_dir)]
    found += [f"interface {name}" for name in interfaces(namespace) if name != "lo"]
    tables = _output("ip", "netns", "exec", namespace, "nft", "list", "tables")
    found += [f"nftables: {line}" for line in tables.splitlines()]
    addresses = _output("ip", "-n", namespace, "-4", "-o", "address", "show", "dev", "lo")
    found += [f"address: {a}" for a in addresses.splitlines() if " 127.0.0.1/8 " not in a]
    if data_dir.exists():
        found.append(f"directory {data_dir}")
    return found


def pod_namespaces(namespace: str) -> frozenset[str]:
    """The namespaces at the other ends of the veth pairs in `namespace`."""
    links = json.loads(_output("ip", "-n", namespace, "-j", "link", "show") or "[]")
    return frozenset(link["link_netns"] for link in links if link.get("link_netns"))


def interfaces(namespace: str) -> list[str]:
    links = json.loads(_output("ip", "-n", namespace, "-j", "link", "show") or "[]")
    return [link["ifname"] for link in links]


def processes_in(namespaces: set[str]) -> frozenset[tuple[int, str]]:
    """Processes whose network namespace is one of these."""
    wanted = set()
    for name in namespaces:
        with suppress(OSError):
            wanted.add(_identity((NETNS / name).stat()))
    return frozenset(
        (pid, _start_time(pid)) for pid in _pids() if _network_of(pid) in wanted and pid != 1
    )


def processes_naming(directory: Path) -> frozenset[tuple[int, str]]:
    """Processes that have the directory in their command line: shims among them."""
    name = f"{directory}/"
    return frozenset(
        (pid, _start_time(pid))
        for pid in _pids()
        if pid != os.getpid() and name in f"{command_of(pid)}/"
    )


def processes_in_cgroup(name: str) -> list[int]:
    """Processes in a cgroup whose path has this in it, the oldest first."""
    found = []
    for pid in _pids():
        with suppress(OSError):
            if name in Path(f"/proc/{pid}/cgroup").read_text():
                found.append(pid)
    return sorted(found, key=lambda pid: int(_start_time(pid) or 0))


def same_network(pid: int) -> list[int]:
    """All processes in the network namespace of a process."""
    network = _network_of(pid)
    return [other for other in _pids() if _network_of(other) == network]


def mounts_below(directory: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[1].startswith(f"{directory}/")]


def end_processes_in(namespace: str) -> None:
    """The last resort after a failed test: our namespace's processes only, each by its id."""
    for pid, _ in processes_in({namespace}):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def unmount_below(directory: Path) -> None:
    for point in reversed(mounts_below(directory)):
        subprocess.run(["umount", "--lazy", point], check=False)


def _cgroups_of(processes: frozenset[tuple[int, str]]) -> set[Path]:
    """Directories of pods' cgroups in every hierarchy."""
    found = set()
    for pid, _ in processes:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
                _, controllers, path = line.split(":", 2)
                if "pod" not in path:
                    continue
                controller = controllers.removeprefix("name=")
                found.add(CGROUPS / controller / path.lstrip("/"))
    return {path for path in found if path.exists()}


def _alive(processes: frozenset[tuple[int, str]]) -> list[tuple[int, str]]:
    return [(pid, start) for pid, start in processes if start and _start_time(pid) == start]


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _network_of(pid: int) -> tuple[int, int] | None:
    try:
        return _identity(Path(f"/proc/{pid}/ns/net").stat())
    except OSError:
        return None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _start_time(pid: int) -> str:
    """The moment a process started, in the kernel's ticks; empty if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout

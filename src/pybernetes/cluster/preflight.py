"""What this machine must have before a cluster can start, each lack as one sentence.

Facts are gathered first and judged by a pure function, so that every sentence is tested without a
machine that lacks something.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pybernetes.cluster.config import ClusterConfig

# Debian's package for each program a real node needs.
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
}
CNI_PACKAGE = "containernetworking-plugins"
# Where Debian and everybody else put CNI plugins.
CNI_DIRECTORIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
CNI_PLUGINS = ("bridge", "host-local", "loopback", "portmap")


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts about a machine that decide whether a cluster can start on it."""

    is_linux: bool
    is_root: bool
    missing_programs: frozenset[str]
    missing_plugins: frozenset[str]
    busy_ports: frozenset[int]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a start would fail, and what to do about it."""

    sentence: str
    # Debian packages that would mend it.
    packages: tuple[str, ...] = ()


def look_at(config: ClusterConfig) -> Machine:
    """Gather the facts; opens and closes listening sockets, changes nothing."""
    wanted = [name for name in PACKAGES if not (name == "containerd" and config.runtime_socket)]
    ports = [config.port]
    if config.simulated_nodes is None and config.has("agent") and not config.isolated_nodes:
        ports.append(config.kubelet_port)
    return Machine(
        is_linux=sys.platform == "linux",
        is_root=os.geteuid() == 0,
        missing_programs=frozenset(name for name in wanted if _program(name) is None),
        missing_plugins=frozenset() if cni_directory() else frozenset(CNI_PLUGINS),
        busy_ports=frozenset(
            port for port in ports if not config.isolated_nodes and _is_busy(port)
        ),
    )


def problems(config: ClusterConfig, machine: Machine) -> list[Problem]:
    """Everything that stands in the way, not only the first thing."""
    found = [
        Problem(
            f"port {port} is in use by another program; stop that program,"
            f" or choose another port with {'--port' if port == config.port else '--kubelet-port'}"
        )
        for port in sorted(machine.busy_ports)
    ]
    needs_a_node = config.simulated_nodes is None and config.has("agent")
    if not needs_a_node:
        return found
    simulate = "or try it without containers: p8s up --simulate"
    if not machine.is_linux:
        return [*found, Problem(f"real containers need Linux; use a Linux machine, {simulate}")]
    if not machine.is_root:
        found.append(Problem(f"real containers need root; run this with sudo, {simulate}"))
    lacking = [PACKAGES[name] for name in PACKAGES if name in machine.missing_programs]
    if machine.missing_plugins:
        lacking.append(CNI_PACKAGE)
    if lacking:
        packages = " ".join(lacking)
        found.append(
            Problem(
                f"{', '.join(lacking)} must be installed: apt-get install {packages}",
                packages=tuple(lacking),
            )
        )
    return found


def cni_directory() -> Path | None:
    """The first directory that holds every CNI plugin we use."""
    for directory in CNI_DIRECTORIES:
        if all((directory / name).exists() for name in CNI_PLUGINS):
            return directory
    return None


def _program(name: str) -> str | None:
    """Like `which`, also where root's programs are when a user's PATH leaves them out."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _is_busy(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return True
    return False

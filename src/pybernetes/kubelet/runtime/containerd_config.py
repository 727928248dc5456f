"""The configuration of the containerd we start ourselves: pure text from facts.

Everything it writes stays in one directory of ours, so that it can be removed without a trace and
never meets another containerd on the machine. Plugins that nobody here uses are off.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.linux import CgroupMode
from pybernetes.kubelet.runtime.pauseimage import PAUSE_IMAGE_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from pybernetes.kubelet.runtime.linux import Machine

CRI_PLUGIN = "io.containerd.grpc.v1.cri"

# Snapshotters for filesystems we do not use, and services that would watch, trace or create
# directories outside ours. A name this containerd does not know is ignored by it.
DISABLED_PLUGINS = (
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where our containerd keeps its things, all below one directory."""

    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def temporary(self) -> Path:
        return self.directory / "tmp"

    @property
    def registries(self) -> Path:
        return self.directory / "certs.d"

    @property
    def config(self) -> Path:
        return self.directory / "config.toml"

    @property
    def socket(self) -> Path:
        return self.directory / "containerd.sock"

    @property
    def log(self) -> Path:
        return self.directory / "containerd.log"

    @property
    def pid(self) -> Path:
        return self.directory / "containerd.pid"


def config_text(
    layout: Layout,
    machine: Machine,
    *,
    snapshotter: str,
    cni_conf_dir: Path,
    cni_bin_dir: Path,
    pause_image: str = PAUSE_IMAGE_NAME,
) -> str:
    """A version 2 configuration, which every containerd since 1.3 reads."""
    sections: list[tuple[str, dict[str, object]]] = [
        (
            "",
            {
                "version": 2,
                "root": str(layout.root),
                "state": str(layout.state),
                "temp": str(layout.temporary),
                # Lowering it needs the capability; better to be killed late than not to start.
                "oom_score": -999 if machine.can_raise_priority else 0,
                "disabled_plugins": DISABLED_PLUGINS,
            },
        ),
        ("grpc", {"address": str(layout.socket)}),
        ("ttrpc", {"address": f"{layout.socket}.ttrpc"}),
        ("debug", {"level": "warn"}),
        (plugin("io.containerd.monitor.v1.cgroups"), {"no_prometheus": True}),
        (
            plugin(CRI_PLUGIN),
            {
                "sandbox_image": pause_image,
                "restrict_oom_score_adj": not machine.can_raise_priority,
                "disable_cgroup": machine.cgroups is CgroupMode.NONE,
                "disable_hugetlb_controller": True,
                "tolerate_missing_hugetlb_controller": True,
                "netns_mounts_under_state_dir": True,
                "stream_server_address": "127.0.0.1",
                "stream_server_port": "0",
                # Log lines are split above this length, as every runtime does.
                "max_container_log_line_size": 16384,
            },
        ),
        (
            plugin(CRI_PLUGIN, "containerd"),
            {"snapshotter": snapshotter, "default_runtime_name": "runc"},
        ),
        (
            plugin(CRI_PLUGIN, "containerd", "runtimes", "runc"),
            {"runtime_type": "io.containerd.runc.v2"},
        ),
        (
            plugin(CRI_PLUGIN, "containerd", "runtimes", "runc", "options"),
            {
                "BinaryName": "runc",
                "Root": str(layout.state / "runc"),
                "SystemdCgroup": machine.has_systemd,
            },
        ),
        (
            plugin(CRI_PLUGIN, "cni"),
            {"bin_dir": str(cni_bin_dir), "conf_dir": str(cni_conf_dir), "max_conf_num": 1},
        ),
        (plugin(CRI_PLUGIN, "registry"), {"config_path": str(layout.registries)}),
    ]
    return "\n".join(_section(name, values) for name, values in sections)


def plugin(*path: str) -> str:
    return ".".join(["plugins", *(json.dumps(part) for part in path)])


def hosts_text(address: str) -> str:
    """The `hosts.toml` of a registry on this machine that speaks plain HTTP."""
    return f'server = "http://{address}"\n\n[host."http://{address}"]\n'


def _section(name: str, values: dict[str, object]) -> str:
    lines = [f"[{name}]"] if name else []
    lines += [f"{key} = {_value(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    # TOML's basic strings, booleans, integers and flat arrays are written as JSON's.
    return json.dumps(list(value) if isinstance(value, tuple) else value)

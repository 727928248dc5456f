"""What a kubelet is told about its node and its cluster."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pybernetes.api.types.core_v1 import Pod, Taint

OWNER_LABEL = "pybernetes.io/kubelet"


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeletConfig:
    """`root_dir=None` is a simulated node: nothing is written, and the machine is not asked."""

    node_name: str
    root_dir: Path | None = None
    log_dir: Path = Path("/var/log/pods")
    addresses: tuple[str, ...] = ()
    """The node's own, the primary one first."""
    port: int = 10250
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    resolv_conf: Path = Path("/etc/resolv.conf")
    cgroup_root: str = ""
    """Parent of the pods' cgroups, such as `/kubepods`; empty: whatever the runtime does."""
    provider_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    capacity: Mapping[str, str] = field(default_factory=dict)
    """What wins over what the machine has."""
    reserved: Mapping[str, str] = field(default_factory=dict)
    """What of the capacity pods cannot have."""
    max_pods: int = 110
    lease_seconds: int = 40
    heartbeat: timedelta = timedelta(seconds=10)
    status_interval: timedelta = timedelta(minutes=5)
    relist_interval: timedelta = timedelta(minutes=5)
    log_max_bytes: int = 10 * 1024 * 1024
    log_max_files: int = 5
    static_pod_dir: Path | None = None
    """Manifests of pods that run here without being asked for in the API."""
    pod_pids_limit: int | None = None

    @property
    def is_simulated(self) -> bool:
        return self.root_dir is None

    @property
    def owner_labels(self) -> dict[str, str]:
        """On every sandbox and container of ours: a runtime may have others, which we leave alone."""
        text = f"{self.root_dir or ''} {self.node_name}"
        return {OWNER_LABEL: hashlib.sha256(text.encode()).hexdigest()[:16]}

    def pod_dir(self, uid: str) -> Path | None:
        return None if self.root_dir is None else self.root_dir / "pods" / uid

    def pod_log_dir(self, pod: Pod) -> str:
        meta = pod.metadata
        return str(self.log_dir / f"{meta.namespace}_{meta.name}_{meta.uid}")


def log_path(container: str, attempt: int) -> str:
    """Below the pod's log directory; what log collectors expect."""
    return f"{container}/{attempt}.log"

"""How a running cluster is, asked through its API like anybody else would."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pybernetes.api.conditions import condition_of
from pybernetes.api.core.nodestate import READY, is_ready
from pybernetes.api.types.core_v1 import Node, Pod
from pybernetes.apimachinery.errors import StatusError
from pybernetes.apimachinery.meta import key_of
from pybernetes.client.kubeconfig import client_from, load_kubeconfig
from pybernetes.wire.http import WireError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# A container that waits for one of these will not come by itself.
_STUCK = ("ImagePullBackOff", "ErrImagePull", "CrashLoopBackOff", "CreateContainerConfigError")


@dataclass(frozen=True, slots=True)
class Health:
    """What `p8s status` shows; `error` if the API did not even answer."""

    error: str = ""
    server: str = ""
    version: str = ""
    nodes: int = 0
    ready_nodes: int = 0
    pods: int = 0
    running_pods: int = 0
    problems: tuple[str, ...] = ()


async def look_at(kubeconfig: Path) -> Health:
    """Ask the cluster of a kubeconfig how it is. Never raises for a cluster that is ill."""
    config = load_kubeconfig([kubeconfig])
    cluster, _, _ = config.resolve()
    client = client_from(config)
    try:
        version = json.loads(await client.request("GET", "/version"))["gitVersion"]
        nodes = (await client.list(Node)).items
        pods = (await client.list(Pod)).items
    except (StatusError, WireError, OSError) as error:
        return Health(error=str(error) or type(error).__name__)
    finally:
        await client.close()
    return Health(
        server=cluster.server,
        version=version,
        nodes=len(nodes),
        ready_nodes=sum(map(is_ready, nodes)),
        pods=len(pods),
        running_pods=sum(pod.status.phase == "Running" for pod in pods),
        problems=tuple(problems_of(nodes, pods)),
    )


def problems_of(nodes: Sequence[Node], pods: Sequence[Pod]) -> Iterator[str]:
    """What somebody should look at, one sentence each."""
    for node in nodes:
        if not is_ready(node):
            condition = condition_of(node.status.conditions, READY)
            why = condition.message if condition else "it has not reported yet"
            yield f"node {node.metadata.name} is not ready: {why}"
    for pod in pods:
        scheduled = condition_of(pod.status.conditions, "PodScheduled")
        if scheduled is not None and scheduled.reason == "Unschedulable":
            yield f"pod {key_of(pod)} has no node: {scheduled.message}"
        for status in (*pod.status.init_container_statuses, *pod.status.container_statuses):
            waiting = status.state.waiting
            if waiting is not None and waiting.reason in _STUCK:
                yield f"pod {key_of(pod)}, container {status.name}: {waiting.message or waiting.reason}"


def used_memory(pid: int) -> int:
    """Resident memory of a process in bytes; 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0

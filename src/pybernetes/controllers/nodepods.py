"""The pods of a node, and how a controller takes one away for the node's sake.

A pod that goes because of its node says so first (condition `DisruptionTarget`, KEP-3329): a Job
can then tell this from a failure of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pybernetes.api.conditions import TRUE
from pybernetes.api.types.core_v1 import Pod
from pybernetes.apimachinery.timestamp import format_time
from pybernetes.client import PatchType

if TYPE_CHECKING:
    from datetime import datetime

    from pybernetes.client import Cache, Client

NODE_INDEX = "spec.nodeName"
DISRUPTION_TARGET = "DisruptionTarget"


def index_by_node(pods: Cache[Pod]) -> None:
    """Have `pods_on` find them without a scan."""
    pods.index(NODE_INDEX, lambda pod: (pod.spec.node_name,) if pod.spec.node_name else ())


def pods_on(pods: Cache[Pod], node_name: str) -> list[Pod]:
    return pods.by_index(NODE_INDEX, node_name)


async def mark_condition(
    client: Client, pod: Pod, condition: dict[str, str], now: datetime, **status: Any
) -> None:
    """Set one condition and further fields of the status; raises NotFound or Conflict if this
    incarnation of the pod is gone."""
    moment = format_time(now)
    patch = {
        "metadata": {"uid": pod.metadata.uid},
        "status": {"conditions": [{**condition, "lastTransitionTime": moment}], **status},
    }
    await client.patch(
        Pod,
        pod.metadata.name,
        pod.metadata.namespace,
        patch=patch,
        type=PatchType.STRATEGIC,
        subresource="status",
    )


async def mark_disrupted(
    client: Client, pod: Pod, *, reason: str, message: str, now: datetime, phase: str = ""
) -> None:
    """Say why the pod is about to be deleted."""
    condition = {"type": DISRUPTION_TARGET, "status": TRUE, "reason": reason, "message": message}
    fields = {"phase": phase} if phase else {}
    await mark_condition(client, pod, condition, now, **fields)

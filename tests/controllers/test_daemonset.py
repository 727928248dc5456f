"""Daemon sets: which nodes, how many at a time, and what becomes of it in a cluster.

The cluster is real but for its containers. Time is virtual.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pybernetes.api.types.apps_v1 import (
    ControllerRevision,
    DaemonSet,
    DaemonSetSpec,
)
from pybernetes.api.types.core_v1 import Node
from pybernetes.api.types.meta_v1 import LabelSelector
from pybernetes.testing.builders import container, metadata, taint, template

if TYPE_CHECKING:
    from pybernetes.testing import Cluster

pytestmark = pytest.mark.cluster(nodes=3)


def daemon_set(name: str = "agent", **spec: Any) -> DaemonSet:
    labels = {"app": name}
    return DaemonSet(
        metadata=metadata(name, labels=labels),
        spec=DaemonSetSpec(
            selector=LabelSelector(match_labels=labels),
            template=spec.pop("template", template(labels)),
            **spec,
        ),
    )


def of_image(image: str) -> Any:
    return template({"app": "agent"}, containers=(container(image=image),))


async def change(cluster: Cluster, **spec: Any) -> None:
    found = await cluster.get(DaemonSet, "agent")
    changed = msgspec.structs.replace(found.spec, **spec)
    await cluster.client.update(msgspec.structs.replace(found, spec=changed))


def where(cluster: Cluster) -> list[str]:
    return sorted(pod.spec.node_name for pod in cluster.pods("default"))


async def test_every_node_gets_a_pod_and_a_new_node_too(cluster: Cluster) -> None:
    await cluster.apply(daemon_set())
    await cluster.run_for(minutes=1)
    assert where(cluster) == ["node-0", "node-1", "node-2"]
    cluster.nodes.add("node-3")
    await cluster.run_for(minutes=1)
    assert where(cluster) == ["node-0", "node-1", "node-2", "node-3"]
    status = (await cluster.get(DaemonSet, "agent")).status
    assert status.desired_number_scheduled == status.number_available == 4
    assert status.updated_number_scheduled == 4


async def test_a_taint_that_drives_out_removes_the_pod(cluster: Cluster) -> None:
    await cluster.apply(daemon_set())
    await cluster.run_for(minutes=1)
    repelling = {"spec": {"taints": [msgspec.to_builtins(taint("only", "mine", "NoExecute"))]}}
    await cluster.client.patch(Node, "node-1", patch=repelling)
    await cluster.run_for(minutes=1)
    assert where(cluster) == ["node-0", "node-2"]


async def test_a_new_template_reaches_one_node_at_a_time(cluster: Cluster) -> None:
    await cluster.apply(daemon_set())
    await cluster.run_for(minutes=1)
    await change(cluster, template=of_image("registry.test/app:2"))
    await cluster.run_for(minutes=3)
    pods = cluster.pods("default")
    assert {pod.spec.containers[0].image for pod in pods} == {"registry.test/app:2"}
    assert where(cluster) == ["node-0", "node-1", "node-2"]
    revisions = (await cluster.client.list(ControllerRevision, "default")).items
    assert sorted(r.revision for r in revisions) == [1, 2]

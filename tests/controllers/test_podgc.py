"""Pods nobody would finish off. The cluster is real, but its nodes are made by hand and have no agent."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pybernetes.api.types.core_v1 import Node, Pod
from pybernetes.controllers.podgc import PodGarbageCollector, surplus
from pybernetes.testing.builders import EPOCH, node, pod, taint, toleration
from tests.controllers.extra import names, running

if TYPE_CHECKING:
    from pybernetes.testing import Cluster

pytestmark = pytest.mark.cluster(nodes=0)


def test_evicted_pods_go_before_older_ones() -> None:
    old = pod("old", phase="Failed", meta={"creation_timestamp": EPOCH})
    evicted = pod(
        "evicted",
        phase="Failed",
        status={"reason": "Evicted"},
        meta={"creation_timestamp": EPOCH + timedelta(hours=1)},
    )
    young = pod("young", phase="Succeeded", meta={"creation_timestamp": EPOCH + timedelta(hours=2)})
    pods = [young, old, evicted]
    assert surplus(pods, 3) == []
    assert surplus(pods, 1) == [evicted, old]


async def test_pods_of_a_missing_node_go_after_a_while(cluster: Cluster) -> None:
    await cluster.client.create(node("here"))
    await cluster.client.create(pod("stays", node="here"))
    await cluster.client.create(pod("orphan", node="nowhere"))
    await cluster.run_for(seconds=39)
    assert await names(cluster, Pod) == ["orphan", "stays"]
    await cluster.run_for(seconds=2)
    assert await names(cluster, Pod) == ["stays"]
    await cluster.client.delete(Node, "here")
    await cluster.run_for(seconds=41)
    assert await names(cluster, Pod) == []


async def test_a_node_that_comes_back_keeps_its_pods(cluster: Cluster) -> None:
    await cluster.client.create(node("here"))
    await cluster.client.create(pod("stays", node="here"))
    await cluster.client.delete(Node, "here")
    await cluster.run_for(seconds=20)
    await cluster.client.create(node("here"))
    await cluster.run_for(seconds=60)
    assert await names(cluster, Pod) == ["stays"]


async def test_a_pod_with_a_finalizer_of_a_missing_node_fails(cluster: Cluster) -> None:
    await cluster.client.create(pod("held", node="nowhere", meta={"finalizers": ("test.io/hold",)}))
    await cluster.run_for(seconds=41)
    held = await cluster.client.get(Pod, "held", "default")
    assert held.status.phase == "Failed"
    (condition,) = (c for c in held.status.conditions if c.type == "DisruptionTarget")
    assert (condition.reason, condition.message) == (
        "DeletionByPodGC",
        "PodGC: node no longer exists",
    )


async def test_a_terminating_pod_without_a_node_goes(cluster: Cluster) -> None:
    held = pod("held", meta={"finalizers": ("test.io/hold",)}, scheduling_gates=())
    await cluster.client.create(held)
    await cluster.client.delete(Pod, "held", "default")
    await cluster.run_for(seconds=1)
    assert (await cluster.client.get(Pod, "held", "default")).status.phase == "Failed"


async def test_terminating_pods_of_a_node_out_of_service_go(cluster: Cluster) -> None:
    await cluster.client.create(node("dead", ready=False))
    await cluster.client.create(pod("stuck", node="dead"))
    stays = toleration("node.kubernetes.io/out-of-service")
    await cluster.client.create(pod("quiet", node="dead", tolerations=(stays,)))
    await cluster.client.delete(Pod, "stuck", "default")
    await cluster.run_for(seconds=100)
    assert await names(cluster, Pod) == ["quiet", "stuck"]
    dead = await cluster.client.get(Node, "dead")
    taints = [*dead.spec.taints, taint("node.kubernetes.io/out-of-service", effect="NoExecute")]
    await cluster.client.patch(Node, "dead", patch={"spec": {"taints": taints}})
    await cluster.run_for(seconds=1)
    assert await names(cluster, Pod) == ["quiet"]


async def test_finished_pods_are_kept_up_to_a_number(cluster: Cluster) -> None:
    async with running(cluster, partial(PodGarbageCollector, finished_limit=2)):
        await cluster.client.create(node("here"))
        for number in range(4):
            name = f"done-{number}"
            await cluster.client.create(pod(name, node="here"))
            await cluster.client.patch(
                Pod,
                name,
                "default",
                patch={"status": {"phase": "Succeeded"}},
                subresource="status",
            )
            await cluster.run_for(seconds=1)
        assert await names(cluster, Pod) == ["done-2", "done-3"]

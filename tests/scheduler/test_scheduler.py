"""The scheduler's loop in a whole cluster.

Real: API server, admission, caches, scheduler, controllers. Simulated: containers and time. The
nodes are simulated agents where pods have to run or leave, else Node objects nobody stands behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pybernetes.api.types.core_v1 import Node, Pod, PodSchedulingGate
from pybernetes.api.types.meta_v1 import LabelSelector
from pybernetes.api.types.policy_v1 import PodDisruptionBudget, PodDisruptionBudgetSpec
from pybernetes.api.types.scheduling_v1 import PriorityClass
from pybernetes.testing.builders import metadata, pod, taint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pybernetes.api.types.core_v1 import PodCondition
    from pybernetes.testing import Cluster


def scheduled(found: Pod) -> PodCondition | None:
    return next((c for c in found.status.conditions if c.type == "PodScheduled"), None)


async def messages(cluster: Cluster, name: str, reason: str) -> list[str]:
    return [event.message for event in await cluster.events(name) if event.reason == reason]


async def change_node(cluster: Cluster, name: str, **spec: Any) -> None:
    node = await cluster.get(Node, name)
    await cluster.client.update(
        msgspec.structs.replace(node, spec=msgspec.structs.replace(node.spec, **spec))
    )


async def node_names(cluster: Cluster) -> list[str]:
    return sorted(node.metadata.name for node in (await cluster.client.list(Node)).items)


async def rank(cluster: Cluster, **values: int) -> None:
    for name, value in values.items():
        await cluster.apply(PriorityClass(metadata=metadata(name, ""), value=value))


def asking(name: str, cpu: str, *, rank: str = "", **fields: Any) -> Pod:
    """A pod whose priority is left to admission."""
    return pod(name, requests={"cpu": cpu}, priority_class_name=rank, **fields)


@pytest.mark.cluster(nodes=3)
async def test_a_pod_is_bound_and_the_event_says_where(cluster: Cluster) -> None:
    await cluster.apply(pod("web"))
    await cluster.settled()
    found = await cluster.get(Pod, "web")
    assert found.spec.node_name in await node_names(cluster)
    condition = scheduled(found)
    assert condition is not None
    assert condition.status == "True"
    assert await messages(cluster, "web", "Scheduled") == [
        f"Successfully assigned default/web to {found.spec.node_name}"
    ]


@pytest.mark.cluster(nodes=3)
async def test_alike_pods_share_the_nodes(cluster: Cluster) -> None:
    await cluster.apply(*(asking(f"web-{i}", "100m") for i in range(9)))
    await cluster.settled()
    nodes = [p.spec.node_name for p in cluster.pods("default")]
    assert sorted(nodes.count(name) for name in await node_names(cluster)) == [3, 3, 3]


@pytest.mark.cluster(nodes=3)
async def test_a_pod_that_fits_nowhere_says_why_in_condition_and_event(cluster: Cluster) -> None:
    first, *_ = await node_names(cluster)
    await change_node(cluster, first, taints=(taint("team", "a"),))
    await cluster.apply(asking("huge", "1000"))
    await cluster.settled()
    condition = scheduled(await cluster.get(Pod, "huge"))
    said = (
        "0/3 nodes are available: 1 node(s) had untolerated taint {team: a}, 2 Insufficient cpu. "
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", "Unschedulable")
    assert condition.message == said
    assert await messages(cluster, "huge", "FailedScheduling") == [said]


@pytest.mark.cluster(nodes=0)
async def test_without_nodes_it_says_so(cluster: Cluster) -> None:
    await cluster.apply(pod("early"))
    await cluster.settled()
    condition = scheduled(await cluster.get(Pod, "early"))
    assert condition is not None
    assert condition.message == "no nodes available to schedule pods"


@pytest.mark.cluster(nodes=1)
async def test_a_waiting_pod_goes_as_soon_as_the_taint_is_gone(cluster: Cluster) -> None:
    (only,) = await node_names(cluster)
    await change_node(cluster, only, taints=(taint("team", "a"),))
    await cluster.apply(pod("web"))
    await cluster.run_for(seconds=30)
    assert not (await cluster.get(Pod, "web")).spec.node_name
    await change_node(cluster, only, taints=())
    await cluster.settled()
    assert (await cluster.get(Pod, "web")).spec.node_name == only


@pytest.mark.cluster(nodes=1)
async def test_a_pod_goes_when_another_leaves(cluster: Cluster) -> None:
    (only,) = await node_names(cluster)
    cpu = int((await cluster.get(Node, only)).status.allocatable["cpu"])
    await cluster.apply(asking("first", str(cpu)))
    await cluster.run_for(seconds=5)
    await cluster.apply(asking("second", str(cpu)))
    await cluster.run_for(seconds=20)
    assert not (await cluster.get(Pod, "second")).spec.node_name
    await cluster.client.delete(Pod, "first", "default", grace_seconds=0)
    await cluster.run_for(seconds=1)
    assert (await cluster.get(Pod, "second")).spec.node_name == only


@pytest.mark.cluster(nodes=2)
async def test_a_pod_that_wants_company_goes_when_it_comes(cluster: Cluster) -> None:
    near: Mapping[str, Any] = {
        "podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {
                    "labelSelector": {"matchLabels": {"app": "db"}},
                    "topologyKey": "kubernetes.io/hostname",
                }
            ]
        }
    }
    await cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web"},
            "spec": {"affinity": near, "containers": [{"name": "web", "image": "web:1"}]},
        }
    )
    await cluster.run_for(seconds=20)
    assert not (await cluster.get(Pod, "web")).spec.node_name
    await cluster.apply(pod("db", labels={"app": "db"}))
    await cluster.run_for(seconds=1)
    found = await cluster.get(Pod, "web")
    assert found.spec.node_name
    assert found.spec.node_name == (await cluster.get(Pod, "db")).spec.node_name


@pytest.mark.cluster(nodes=1)
async def test_a_gated_pod_waits_until_the_gate_is_lifted(cluster: Cluster) -> None:
    await cluster.apply(pod("gated", scheduling_gates=(PodSchedulingGate(name="example.com/x"),)))
    await cluster.run_for(minutes=10)
    found = await cluster.get(Pod, "gated")
    assert not found.spec.node_name
    condition = scheduled(found)
    assert condition is not None
    assert condition.reason == "SchedulingGated"
    await cluster.client.update(
        msgspec.structs.replace(
            found, spec=msgspec.structs.replace(found.spec, scheduling_gates=())
        )
    )
    await cluster.run_for(seconds=1)
    assert (await cluster.get(Pod, "gated")).spec.node_name


@pytest.mark.cluster(nodes=1)
async def test_pods_of_another_scheduler_are_left_alone(cluster: Cluster) -> None:
    await cluster.apply(pod("other", scheduler_name="somebody-else"))
    await cluster.run_for(minutes=10)
    found = await cluster.get(Pod, "other")
    assert not found.spec.node_name
    assert scheduled(found) is None


@pytest.mark.cluster(nodes=1)
async def test_an_important_pod_takes_the_room_of_a_lesser_one(cluster: Cluster) -> None:
    (only,) = await node_names(cluster)
    cpu = int((await cluster.get(Node, only)).status.allocatable["cpu"])
    await rank(cluster, high=1000, low=10)
    await cluster.apply(asking("lesser", str(cpu), rank="low"))
    await cluster.run_for(seconds=5)
    lesser = await cluster.get(Pod, "lesser")
    assert lesser.spec.node_name == only
    await cluster.apply(asking("important", str(cpu), rank="high"))
    await cluster.settled()
    important = await cluster.get(Pod, "important")
    assert important.status.nominated_node_name == only
    assert await messages(cluster, "lesser", "Preempted") == [
        f"Preempted by pod {important.metadata.uid} on node {only}"
    ]
    await cluster.run_for(minutes=2)
    assert (await cluster.get(Pod, "important")).spec.node_name == only
    assert "lesser" not in {p.metadata.name for p in cluster.pods("default")}


@pytest.mark.cluster(nodes=3)
async def test_several_important_pods_each_make_room_once(cluster: Cluster) -> None:
    names = await node_names(cluster)
    cpu = int((await cluster.get(Node, names[0])).status.allocatable["cpu"])
    await rank(cluster, high=1000, low=10)
    await cluster.apply(*(asking(f"lesser-{i}", str(cpu), rank="low") for i in range(3)))
    await cluster.run_for(seconds=5)
    await cluster.apply(*(asking(f"important-{i}", str(cpu), rank="high") for i in range(2)))
    await cluster.run_for(minutes=3)
    running = {p.metadata.name for p in cluster.pods("default") if p.spec.node_name}
    assert {"important-0", "important-1"} <= running
    assert len(running & {"lesser-0", "lesser-1", "lesser-2"}) == 1


@pytest.mark.cluster(nodes=2)
async def test_preemption_spares_what_a_budget_protects(cluster: Cluster) -> None:
    names = await node_names(cluster)
    cpu = int((await cluster.get(Node, names[0])).status.allocatable["cpu"])
    await rank(cluster, high=1000, low=10)
    await cluster.apply(
        PodDisruptionBudget(
            metadata=metadata("keep"),
            spec=PodDisruptionBudgetSpec(
                min_available=1, selector=LabelSelector(match_labels={"app": "kept"})
            ),
        )
    )
    await cluster.apply(
        asking("kept", str(cpu), rank="low", labels={"app": "kept"}),
        asking("other", str(cpu), rank="low", labels={"app": "other"}),
    )
    await cluster.run_for(seconds=5)
    await cluster.apply(asking("important", str(cpu), rank="high"))
    await cluster.run_for(minutes=2)
    assert (await cluster.get(Pod, "important")).spec.node_name
    assert {p.metadata.name for p in cluster.pods("default")} == {"kept", "important"}


@pytest.mark.cluster(nodes=1)
async def test_an_unschedulable_pod_costs_nothing_while_nothing_happens(cluster: Cluster) -> None:
    await cluster.apply(asking("huge", "1000"))
    await cluster.run_for(seconds=5)
    before = (await cluster.get(Pod, "huge")).metadata.resource_version
    await cluster.run_for(minutes=4)
    assert (await cluster.get(Pod, "huge")).metadata.resource_version == before
    (event,) = [e for e in await cluster.events("huge") if e.reason == "FailedScheduling"]
    assert (event.count or 1) <= 2

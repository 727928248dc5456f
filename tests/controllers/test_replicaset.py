"""Replica sets and replication controllers: the choice of pods by tables, the rest in a cluster.

The cluster is real but for its containers. Time is virtual.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pybernetes.api.core.podstate import is_active, is_ready
from pybernetes.api.types.apps_v1 import ReplicaSet
from pybernetes.api.types.core_v1 import (
    ContainerStatus,
    Pod,
    ReplicationController,
    ReplicationControllerSpec,
)
from pybernetes.controllers.replicaset import ReplicaPlan, deletion_rank, plan_replicas
from pybernetes.testing.builders import EPOCH, metadata, pod, replica_set, template

if TYPE_CHECKING:
    from pybernetes.testing import Cluster

param = pytest.param


def named(name: str, **fields: Any) -> Pod:
    return pod(name, **fields)


def aged(name: str, seconds: int, **fields: Any) -> Pod:
    created = EPOCH + timedelta(seconds=seconds)
    return pod(name, meta={"creation_timestamp": created}, **fields)


READY = named("ready", node="n", ready=True)
TERMINATING = named("going", node="n", ready=True, meta={"deletion_timestamp": EPOCH})


@pytest.mark.parametrize(
    ("replicas", "pods", "create", "delete"),
    [
        param(3, [], 3, [], id="scale up from zero"),
        param(700, [], 500, [], id="no more than a burst at once"),
        param(1, [named("f", phase="Failed")], 1, [], id="failed does not count"),
        param(1, [TERMINATING], 1, [], id="terminating does not count"),
        param(1, [READY], 0, [], id="enough"),
        param(0, [READY, TERMINATING], 0, ["ready"], id="terminating is not deleted again"),
        param(1, [READY, named("un", node="n", ready=False)], 0, ["un"], id="unready goes first"),
        param(1, [READY, named("nowhere", ready=True)], 0, ["nowhere"], id="unbound goes first"),
        param(
            1,
            [named("p", node="n"), named("r", node="n", ready=False)],
            0,
            ["p"],
            id="pending before running",
        ),
        param(
            1, [aged("old", 0, node="n"), aged("new", 9, node="n")], 0, ["new"], id="young first"
        ),
        param(
            2,
            [
                named("a", node="crowded", ready=True),
                named("b", node="crowded", ready=True),
                named("c", node="other", ready=True),
            ],
            0,
            ["a"],
            id="crowded node first",
        ),
        param(
            1,
            [
                named("dear", node="n", ready=True),
                pod(
                    "cheap",
                    node="n",
                    ready=True,
                    meta={"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}},
                ),
            ],
            0,
            ["cheap"],
            id="cheap before dear",
        ),
        param(
            1,
            [
                named("stable", node="n", ready=True),
                named(
                    "restarting",
                    node="n",
                    ready=True,
                    status={"container_statuses": (ContainerStatus(restart_count=4),)},
                ),
            ],
            0,
            ["restarting"],
            id="often restarted first",
        ),
    ],
)
def test_plan(replicas: int, pods: list[Pod], create: int, delete: list[str]) -> None:
    plan = plan_replicas(replicas, pods)
    assert (plan.create, [p.metadata.name for p in plan.delete]) == (create, delete)


def test_a_deletion_cost_that_is_no_number_is_none() -> None:
    odd = named("odd")
    odd.metadata.annotations["controller.kubernetes.io/pod-deletion-cost"] = "cheap"
    assert deletion_rank(odd, Counter())[3] == 0


pods_of_any_sort = st.lists(
    st.builds(
        lambda phase, node, ready, going: pod(
            "p",
            node=node,
            phase=phase,
            ready=ready if phase == "Running" else None,
            meta={"deletion_timestamp": EPOCH} if going else {},
        ),
        st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]),
        st.sampled_from(["", "n1", "n2"]),
        st.booleans(),
        st.booleans(),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(replicas=st.integers(0, 12), pods=pods_of_any_sort)
def test_a_plan_reaches_the_number_and_takes_no_ready_pod_before_an_unready_one(
    replicas: int, pods: list[Pod]
) -> None:
    plan = plan_replicas(replicas, pods)
    active = [p for p in pods if is_active(p)]
    assert len(active) + plan.create - len(plan.delete) == replicas
    assert not (plan.create and plan.delete)
    gone = {p.metadata.uid for p in plan.delete}
    assert gone <= {p.metadata.uid for p in active}
    kept = [p for p in active if p.metadata.uid not in gone]
    if any(is_ready(p) and p.spec.node_name for p in plan.delete):
        assert all(is_ready(p) for p in kept)


def test_an_empty_plan_is_no_plan() -> None:
    assert plan_replicas(1, [READY]) == ReplicaPlan()


# --- in a cluster ---------------------------------------------------------------------------------


async def test_a_deleted_pod_is_replaced(cluster: Cluster) -> None:
    await cluster.apply(replica_set("web", replicas=3))
    await cluster.run_for(seconds=10)
    victim = cluster.pods("default")[0]
    await cluster.client.delete(victim)
    await cluster.run_for(minutes=1)
    names = {p.metadata.name for p in cluster.pods("default")}
    assert len(names) == 3
    assert victim.metadata.name not in names
    status = (await cluster.get(ReplicaSet, "web")).status
    assert (status.replicas, status.ready_replicas, status.available_replicas) == (3, 3, 3)
    assert status.fully_labeled_replicas == 3


async def test_min_ready_seconds_delay_availability(cluster: Cluster) -> None:
    await cluster.apply(replica_set("web", replicas=1, min_ready_seconds=30))
    await cluster.run_for(seconds=20)
    status = (await cluster.get(ReplicaSet, "web")).status
    assert (status.ready_replicas, status.available_replicas) == (1, 0)
    await cluster.run_for(seconds=20)
    assert (await cluster.get(ReplicaSet, "web")).status.available_replicas == 1


async def test_orphans_are_adopted_and_strangers_released(cluster: Cluster) -> None:
    await cluster.apply(pod("alone", labels={"app": "web"}))
    await cluster.run_for(seconds=5)
    await cluster.apply(replica_set("web", replicas=2))
    await cluster.run_for(seconds=10)
    assert len(cluster.pods("default")) == 2
    alone = await cluster.get(Pod, "alone")
    assert [(r.kind, r.name, r.controller) for r in alone.metadata.owner_references] == [
        ("ReplicaSet", "web", True)
    ]
    await cluster.client.patch(
        Pod, "alone", "default", patch={"metadata": {"labels": {"app": "other"}}}
    )
    await cluster.run_for(seconds=10)
    assert len(cluster.pods("default")) == 3
    assert (await cluster.get(Pod, "alone")).metadata.owner_references == ()


async def test_a_replication_controller_keeps_its_number(cluster: Cluster) -> None:
    labels = {"app": "old"}
    await cluster.apply(
        ReplicationController(
            metadata=metadata("old"),
            spec=ReplicationControllerSpec(replicas=2, selector=labels, template=template(labels)),
        )
    )
    await cluster.run_for(seconds=10)
    assert len(cluster.pods("default", phase="Running")) == 2
    found = await cluster.get(ReplicationController, "old")
    assert found.status.ready_replicas == 2
    spec = msgspec.structs.replace(found.spec, replicas=0)
    await cluster.client.update(msgspec.structs.replace(found, spec=spec))
    await cluster.run_for(minutes=1)
    assert cluster.pods("default") == []


async def test_a_failed_pod_is_replaced(cluster: Cluster) -> None:
    await cluster.apply(replica_set("web", replicas=1))
    await cluster.run_for(seconds=5)
    (first,) = cluster.pods("default")
    await cluster.client.patch(
        Pod,
        first.metadata.name,
        "default",
        patch={"status": {"phase": "Failed", "reason": "Evicted"}},
        subresource="status",
    )
    await cluster.settled()
    assert len([p for p in cluster.pods("default") if p.status.phase != "Failed"]) == 1

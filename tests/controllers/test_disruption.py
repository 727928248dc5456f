"""Disruption budgets: counting by tables, then evictions in a cluster (real but for containers)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pybernetes.api.types.core_v1 import Pod, PodCondition
from pybernetes.api.types.meta_v1 import LabelSelector, ObjectMeta
from pybernetes.api.types.policy_v1 import (
    Eviction,
    PodDisruptionBudget,
    PodDisruptionBudgetSpec,
    PodDisruptionBudgetStatus,
)
from pybernetes.apimachinery.errors import TooManyRequests
from pybernetes.controllers.disruption import Target, status_of, target_of
from pybernetes.testing.builders import EPOCH, deployment, metadata, pod
from tests.controllers.extra import said_of

if TYPE_CHECKING:
    from pybernetes.testing import Cluster


def budget(**spec: Any) -> PodDisruptionBudget:
    return PodDisruptionBudget(
        metadata=metadata("web", generation=3),
        spec=PodDisruptionBudgetSpec(selector=LabelSelector(match_labels={"app": "web"}), **spec),
    )


@pytest.mark.parametrize(
    ("spec", "present", "scale", "target"),
    [
        ({"min_available": 2}, 5, 0, Target(5, 2)),
        ({"min_available": "50%"}, 3, 5, Target(5, 3)),
        ({"max_unavailable": 1}, 3, 5, Target(5, 4)),
        ({"max_unavailable": "30%"}, 3, 10, Target(10, 7)),
        ({"max_unavailable": "25%"}, 3, 5, Target(5, 3)),
        ({"max_unavailable": 9}, 3, 5, Target(5, 0)),
        ({"min_available": 0}, 0, 0, Target(0, 0)),
    ],
)
def test_how_many_must_be_healthy(
    spec: dict[str, Any], present: int, scale: int, target: Target
) -> None:
    assert target_of(budget(**spec), present, scale) == target


def test_only_pods_that_are_ready_and_stay_are_healthy() -> None:
    going = pod("going", ready=True, meta={"deletion_timestamp": EPOCH})
    pods = [pod("a", ready=True), pod("b", ready=True), pod("c", ready=False), going]
    status = status_of(budget(), pods, Target(4, 1), EPOCH)
    assert (status.current_healthy, status.disruptions_allowed) == (2, 1)
    assert (status.expected_pods, status.desired_healthy, status.observed_generation) == (4, 1, 3)
    (condition,) = status.conditions
    assert (condition.type, condition.status, condition.reason, condition.observed_generation) == (
        "DisruptionAllowed",
        "True",
        "SufficientPods",
        3,
    )


def test_a_pod_that_was_let_go_counts_as_gone_for_two_minutes() -> None:
    pods = [pod("a", ready=True), pod("b", ready=True)]
    let_go = {"a": EPOCH, "unknown": EPOCH}
    there = msgspec.structs.replace(
        budget(), status=PodDisruptionBudgetStatus(disrupted_pods=dict(let_go))
    )
    soon = status_of(there, pods, Target(2, 1), EPOCH + timedelta(minutes=1))
    assert (soon.disrupted_pods, soon.disruptions_allowed) == ({"a": EPOCH}, 0)
    late = status_of(there, pods, Target(2, 1), EPOCH + timedelta(minutes=3))
    assert (late.disrupted_pods, late.disruptions_allowed) == ({}, 1)


def test_without_pods_nobody_may_go() -> None:
    status = status_of(budget(), [], Target(0, 0), EPOCH)
    assert status.disruptions_allowed == 0
    assert status.conditions[0].reason == "InsufficientPods"


@pytest.mark.cluster(nodes=2)
async def test_evictions_are_let_through_as_the_budget_allows(cluster: Cluster) -> None:
    await cluster.apply(deployment("web", replicas=3), budget(max_unavailable=1))
    await cluster.run_for(seconds=20)
    status = (await cluster.get(PodDisruptionBudget, "web")).status
    assert (status.expected_pods, status.desired_healthy, status.current_healthy) == (3, 2, 3)
    assert status.disruptions_allowed == 1
    first, second, _ = cluster.pods("default")
    await evict(cluster, first)
    with pytest.raises(TooManyRequests):
        await evict(cluster, second)
    await cluster.run_for(minutes=2)
    status = (await cluster.get(PodDisruptionBudget, "web")).status
    assert (status.disruptions_allowed, status.disrupted_pods) == (1, {})
    await evict(cluster, second)
    await cluster.run_for(minutes=30)
    version = (await cluster.get(PodDisruptionBudget, "web")).metadata.resource_version
    await cluster.run_for(minutes=30)
    after = await cluster.get(PodDisruptionBudget, "web")
    assert after.metadata.resource_version == version


@pytest.mark.cluster(nodes=0)
async def test_pods_nobody_controls_make_a_share_uncountable(cluster: Cluster) -> None:
    await cluster.apply(budget(max_unavailable=1), pod("alone", labels={"app": "web"}))
    await cluster.run_for(seconds=1)
    assert any(said.startswith("UnmanagedPods: Pods") for said in await said_of(cluster, "web"))
    assert (await cluster.get(PodDisruptionBudget, "web")).status.disruptions_allowed == 0


@pytest.mark.cluster(nodes=0)
async def test_a_controller_without_a_scale_is_said_to_have_none(cluster: Cluster) -> None:
    from pybernetes.api.types.meta_v1 import OwnerReference

    owner = OwnerReference(
        api_version="example.com/v1", kind="Widget", name="w", uid="u", controller=True
    )
    await cluster.apply(budget(max_unavailable=1), pod("p", labels={"app": "web"}, owner=owner))
    await cluster.run_for(seconds=1)
    (condition,) = (await cluster.get(PodDisruptionBudget, "web")).status.conditions
    assert (condition.reason, condition.message) == (
        "SyncFailed",
        "widgets.example.com does not implement the scale subresource",
    )


@pytest.mark.cluster(nodes=0)
async def test_a_pod_that_did_not_go_is_no_target_any_more(cluster: Cluster) -> None:
    await cluster.apply(pod("stays"))
    mark = PodCondition(
        type="DisruptionTarget", status="True", last_transition_time=cluster.clock.now()
    )
    await cluster.client.patch(
        Pod, "stays", "default", patch={"status": {"conditions": [mark]}}, subresource="status"
    )
    await cluster.run_for(seconds=119)
    assert await target_mark(cluster) == "True"
    await cluster.run_for(seconds=3)
    assert await target_mark(cluster) == "False"


async def target_mark(cluster: Cluster) -> str:
    found = await cluster.get(Pod, "stays")
    (condition,) = (c for c in found.status.conditions if c.type == "DisruptionTarget")
    return condition.status


async def evict(cluster: Cluster, target: Pod) -> None:
    name = target.metadata.name
    eviction = Eviction(metadata=ObjectMeta(name=name, namespace="default"))
    await cluster.client.create_subresource(Pod, name, "default", "eviction", eviction)

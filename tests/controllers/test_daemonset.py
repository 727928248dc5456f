"""Daemon sets: which nodes, how many at a time, and what becomes of it in a cluster.

The cluster is real but for its containers. Time is virtual.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pybernetes.api.types.apps_v1 import (
    ControllerRevision,
    DaemonSet,
    DaemonSetSpec,
    DaemonSetUpdateStrategy,
    RollingUpdateDaemonSet,
)
from pybernetes.api.types.core_v1 import (
    Affinity,
    Node,
    NodeAffinity,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    Pod,
)
from pybernetes.api.types.meta_v1 import LabelSelector
from pybernetes.client import PatchType
from pybernetes.controllers.daemonset.placement import (
    Verdict,
    new_pod,
    target_of,
    verdict_of,
)
from pybernetes.controllers.daemonset.plan import (
    Bounds,
    Look,
    bounds_of,
    look_at,
    plan_nodes,
    plan_update,
    status_of,
)
from pybernetes.kubelet.runtime.script import missing
from pybernetes.testing.builders import (
    EPOCH,
    container,
    metadata,
    node,
    pod,
    taint,
    template,
    toleration,
)

if TYPE_CHECKING:
    from pybernetes.testing import Cluster

pytestmark = pytest.mark.cluster(nodes=3)
param = pytest.param

OLD, NEW = "old", "new"


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


def with_template(**spec: Any) -> DaemonSet:
    return daemon_set(template=template({"app": "agent"}, **spec))


def rolling(
    unavailable: int | str | None = 1, surge: int | str | None = 0
) -> DaemonSetUpdateStrategy:
    return DaemonSetUpdateStrategy(
        type="RollingUpdate",
        rolling_update=RollingUpdateDaemonSet(max_unavailable=unavailable, max_surge=surge),
    )


def on(
    where: str, state: str = "ready", revision: str = NEW, *, age: int = 0, bound: bool = True
) -> Pod:
    """A pod on a node: ready, unready, failed, succeeded or going."""
    phases = {"failed": "Failed", "succeeded": "Succeeded"}
    found = pod(
        f"agent-{where}-{revision}-{age}",
        labels={"app": "agent", "controller-revision-hash": revision},
        node=where if bound else "",
        phase=phases.get(state, "Running"),
        ready=None if state in phases else state != "unready",
        meta={
            "creation_timestamp": EPOCH - timedelta(minutes=age),
            "deletion_timestamp": EPOCH if state == "going" else None,
        },
    )
    if bound:
        return found
    tied = new_pod(daemon_set(), where, revision)
    spec = msgspec.structs.replace(found.spec, affinity=tied.spec.affinity)
    return msgspec.structs.replace(found, spec=spec)


def look(found: DaemonSet, *pods: Pod, nodes: int | list[Node] = 3) -> Look:
    if isinstance(nodes, int):
        nodes = [node(f"n{number}") for number in range(nodes)]
    return look_at(found, pods, nodes, revision=NEW, now=EPOCH + timedelta(hours=1))


# --- tables ---------------------------------------------------------------------------------------

YES, STAYS, NO = Verdict(True, True), Verdict(False, True), Verdict(False, False)
REQUIRED = NodeAffinity(
    required_during_scheduling_ignored_during_execution=NodeSelector(
        node_selector_terms=(
            NodeSelectorTerm(
                match_expressions=(
                    NodeSelectorRequirement(key="zone", operator="In", values=("a",)),
                )
            ),
        )
    )
)


@pytest.mark.parametrize(
    ("found", "where", "verdict"),
    [
        param(daemon_set(), node("n"), YES, id="any node"),
        param(with_template(node_selector={"disk": "ssd"}), node("n"), NO, id="not selected"),
        param(
            with_template(node_selector={"disk": "ssd"}),
            node("n", labels={"disk": "ssd"}),
            YES,
            id="selected",
        ),
        param(
            with_template(affinity=Affinity(node_affinity=REQUIRED)),
            node("n", labels={"zone": "b"}),
            NO,
            id="another zone",
        ),
        param(with_template(node_name="other"), node("n"), NO, id="for another node"),
        param(daemon_set(), node("n", taints=[taint("only", "x")]), STAYS, id="tainted"),
        param(
            daemon_set(),
            node("n", taints=[taint("only", "x", "NoExecute")]),
            NO,
            id="tainted, driven out",
        ),
        param(
            daemon_set(),
            node("n", taints=[taint("only", "x", "PreferNoSchedule")]),
            YES,
            id="only a preference",
        ),
        param(
            with_template(tolerations=(toleration("only"),)),
            node("n", taints=[taint("only", "x", "NoExecute")]),
            YES,
            id="tolerated",
        ),
        param(
            daemon_set(),
            node(
                "n",
                taints=[
                    taint("node.kubernetes.io/not-ready", effect="NoExecute"),
                    taint("node.kubernetes.io/unschedulable"),
                    taint("node.kubernetes.io/disk-pressure"),
                ],
            ),
            YES,
            id="nodes in trouble are kept",
        ),
        param(
            daemon_set(),
            node("n", taints=[taint("node.kubernetes.io/network-unavailable")]),
            STAYS,
            id="no network, and one is needed",
        ),
        param(
            with_template(host_network=True),
            node("n", taints=[taint("node.kubernetes.io/network-unavailable")]),
            YES,
            id="no network, and none is needed",
        ),
    ],
)
def test_which_nodes(found: DaemonSet, where: Node, verdict: Verdict) -> None:
    assert verdict_of(found, where) == verdict


def test_a_pod_is_tied_to_its_node_and_keeps_what_it_prefers() -> None:
    made = new_pod(with_template(affinity=Affinity(node_affinity=REQUIRED)), "n7", "abc")
    assert target_of(made) == "n7"
    assert made.metadata.labels["controller-revision-hash"] == "abc"
    assert made.metadata.generate_name == "agent-"
    assert len(made.spec.tolerations) == 6


@pytest.mark.parametrize(
    ("pods", "create", "delete"),
    [
        param([on("n0"), on("n1")], ["n2"], [], id="one is missing"),
        param([on("n0"), on("n1"), on("n2", bound=False)], [], [], id="on its way to its node"),
        param(
            [on("n0"), on("n1"), on("n2"), on("n2", age=9)],
            [],
            ["agent-n2-new-0"],
            id="two are one too many: the older stays",
        ),
        param(
            [on("n0"), on("n1"), on("n2", "going")], [], [], id="no second before the end of one"
        ),
        param(
            [on("n0"), on("n1"), on("n2", "failed")],
            [],
            ["agent-n2-new-0"],
            id="failed: first it goes",
        ),
        param(
            [on("n0"), on("n1"), on("n2"), on("gone", bound=False)],
            [],
            ["agent-gone-new-0"],
            id="tied to a node that is gone",
        ),
    ],
)
def test_each_node_is_set_right(pods: list[Pod], create: list[str], delete: list[str]) -> None:
    plan = plan_nodes(look(daemon_set(update_strategy=rolling()), *pods))
    assert (list(plan.create), [p.metadata.name for p in plan.delete]) == (create, delete)


@pytest.mark.parametrize(
    ("strategy", "pods", "delete"),
    [
        param(rolling(1), [on("n0", "ready", OLD), on("n1", "ready", OLD)], ["n0"], id="one"),
        param(
            rolling("100%"),
            [on("n0", "ready", OLD), on("n1", "ready", OLD)],
            ["n0", "n1"],
            id="all",
        ),
        param(
            rolling(1), [on("n0", "unready"), on("n1", "ready", OLD)], [], id="one is down already"
        ),
        param(
            rolling(1),
            [on("n0", "ready", OLD), on("n1", "unready", OLD)],
            ["n1"],
            id="broken ones go first, and count",
        ),
        param(rolling(1), [on("n0"), on("n1", "ready", OLD)], ["n1"], id="the rest"),
        param(
            DaemonSetUpdateStrategy(type="OnDelete"),
            [on("n0", "ready", OLD), on("n1", "ready", OLD)],
            [],
            id="by hand",
        ),
    ],
)
def test_update(strategy: DaemonSetUpdateStrategy, pods: list[Pod], delete: list[str]) -> None:
    plan = plan_update(look(daemon_set(update_strategy=strategy), *pods, nodes=2))
    assert [p.spec.node_name for p in plan.delete] == delete
    assert plan.create == ()


def test_surge_adds_beside_the_old_one_and_takes_it_when_the_new_one_works() -> None:
    found = daemon_set(update_strategy=rolling(0, 1))
    first, second = on("n0", "ready", OLD), on("n1", "ready", OLD)
    assert plan_update(look(found, first, second, nodes=2)).create == ("n0",)
    coming = on("n0", "unready")
    world = look(found, first, second, coming, nodes=2)
    assert not plan_nodes(world)
    assert not plan_update(world)
    world = look(found, first, second, on("n0"), nodes=2)
    assert plan_nodes(world).delete == (first,)
    broken = on("n0", "unready", OLD)
    assert plan_nodes(look(found, broken, second, coming, nodes=2)).delete == (broken,)


@pytest.mark.parametrize(
    ("strategy", "bounds"),
    [
        (rolling("10%"), Bounds(0, 1)),
        (rolling("25%"), Bounds(0, 2)),
        (rolling(0, "30%"), Bounds(2, 0)),
        (rolling(0, 0), Bounds(0, 1)),
        (DaemonSetUpdateStrategy(type="OnDelete"), Bounds(0, 0)),
    ],
)
def test_bounds(strategy: DaemonSetUpdateStrategy, bounds: Bounds) -> None:
    assert bounds_of(daemon_set(update_strategy=strategy), 5) == bounds


def test_the_status_counts_nodes() -> None:
    nodes = [node("n0"), node("n1"), node("n2", taints=[taint("only", "x")]), node("n3")]
    found = look(daemon_set(), on("n0"), on("n1", "unready", OLD), on("n2"), nodes=nodes)
    status = status_of(found, collisions=0)
    assert status.desired_number_scheduled == 3
    assert status.current_number_scheduled == 2
    assert status.number_misscheduled == 1
    assert (status.number_ready, status.number_available, status.number_unavailable) == (1, 1, 2)
    assert status.updated_number_scheduled == 1


# --- properties -----------------------------------------------------------------------------------


@st.composite
def worlds(draw: st.DrawFn) -> Look:
    surge = draw(st.booleans())
    amounts: list[int | str] = [1, 2, "50%", "100%"]
    amount = draw(st.sampled_from(amounts))
    strategy = rolling(0, amount) if surge else rolling(amount, 0)
    count = draw(st.integers(1, 6))
    states = st.sampled_from(["ready", "unready", "failed", "going"])
    pods = []
    for number in range(count):
        for age in range(draw(st.integers(0, 2))):
            revision = draw(st.sampled_from([OLD, NEW]))
            pods.append(on(f"n{number}", draw(states), revision, age=age))
    return look(daemon_set(update_strategy=strategy), *pods, nodes=count)


def works(world: Look, name: str, without: tuple[Pod, ...] = ()) -> bool:
    return any(world.is_available(p) for p in world.pods.get(name, ()) if p not in without)


@settings(deadline=None)
@given(world=worlds())
def test_an_update_leaves_no_more_nodes_without_a_working_pod_than_it_may(world: Look) -> None:
    if plan_nodes(world):
        return
    bounds = bounds_of(world.daemon_set, len(world.wanted))
    plan = plan_update(world)
    before = sum(not works(world, name) for name in world.wanted)
    after = sum(not works(world, name, plan.delete) for name in world.wanted)
    assert after <= max(before, bounds.unavailable)
    doubled = sum(
        len({world.is_updated(p) for p in world.pods.get(name, ())}) == 2 for name in world.wanted
    )
    fresh = [name for name in plan.create if works(world, name)]
    assert doubled + len(fresh) <= max(doubled, bounds.surge)
    assert not any(world.is_updated(p) for p in plan.delete)


@settings(deadline=None)
@given(world=worlds())
def test_repeated_looks_put_one_new_pod_on_every_node(world: Look) -> None:
    """The world answers: what is deleted is gone, what is made or going becomes what it should."""
    for turn in range(1, 40):
        plan = plan_nodes(world) or plan_update(world)
        pods = [
            p
            for group in world.pods.values()
            for p in group
            if p not in plan.delete and not p.metadata.deletion_timestamp
        ]
        pods = [
            p
            if p.status.phase == "Failed"
            else on(p.spec.node_name, "ready", p.metadata.labels["controller-revision-hash"])
            for p in pods
        ]
        pods += [on(name, age=-turn) for name in plan.create]
        nodes = [node(name) for name in world.verdicts]
        world = look(world.daemon_set, *pods, nodes=nodes)
    assert not plan_nodes(world)
    assert not plan_update(world)
    assert all(len(world.pods[name]) == 1 for name in world.wanted)
    assert all(world.is_updated(world.pods[name][0]) for name in world.wanted)


# --- in a cluster ---------------------------------------------------------------------------------


def of_image(image: str) -> Any:
    return template({"app": "agent"}, containers=(container(image=image),))


async def change(cluster: Cluster, **spec: Any) -> None:
    found = await cluster.get(DaemonSet, "agent")
    changed = msgspec.structs.replace(found.spec, **spec)
    await cluster.client.update(msgspec.structs.replace(found, spec=changed))


def where(cluster: Cluster) -> list[str]:
    return sorted(pod.spec.node_name for pod in cluster.pods("default"))


def images(cluster: Cluster) -> set[str]:
    return {p.spec.containers[0].image.rpartition("/")[2] for p in cluster.pods("default")}


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


async def test_surging_leaves_no_node_without_a_pod(cluster: Cluster) -> None:
    await cluster.apply(daemon_set(update_strategy=rolling(0, 1)))
    await cluster.run_for(minutes=1)
    fewest: list[int] = []

    def count(old: Pod | None, new: Pod | None) -> None:
        pods = [p for p in cluster.pods("default") if p.metadata.deletion_timestamp is None]
        fewest.append(len({p.spec.node_name for p in pods if p.spec.node_name}))

    stop = cluster.plane.caches.of(Pod).subscribe(count)
    await change(cluster, template=of_image("registry.test/app:2"))
    await cluster.run_for(minutes=3)
    stop()
    assert min(fewest) == 3
    assert images(cluster) == {"app:2"}
    assert where(cluster) == ["node-0", "node-1", "node-2"]


async def test_a_broken_template_stops_after_one_node(cluster: Cluster) -> None:
    await cluster.apply(daemon_set())
    await cluster.run_for(minutes=1)
    for name in cluster.nodes.names():
        cluster.runtime_of(name).script_image("registry.test/broken:1", missing())
    await change(cluster, template=of_image("registry.test/broken:1"))
    await cluster.run_for(minutes=5)
    status = (await cluster.get(DaemonSet, "agent")).status
    assert (status.number_available, status.updated_number_scheduled) == (2, 1)
    # As kubectl rollout undo does.
    revisions = (await cluster.client.list(ControllerRevision, "default")).items
    first = min(revisions, key=lambda r: r.revision)
    await cluster.client.patch(
        DaemonSet, "agent", "default", patch=first.data, type=PatchType.STRATEGIC
    )
    await cluster.run_for(minutes=3)
    assert images(cluster) == {"app:1"}
    status = (await cluster.get(DaemonSet, "agent")).status
    assert (status.number_available, status.updated_number_scheduled) == (3, 3)


async def test_failed_pods_are_replaced_with_back_off(cluster: Cluster) -> None:
    await cluster.apply(daemon_set())
    await cluster.run_for(minutes=1)
    for _ in range(2):
        (victim,) = [p for p in cluster.pods("default") if p.spec.node_name == "node-1"]
        name = victim.metadata.name
        patch = {"status": {"phase": "Failed", "reason": "Evicted"}}
        await cluster.client.patch(Pod, name, "default", patch=patch, subresource="status")
        await cluster.run_for(seconds=10)
        assert where(cluster) == ["node-0", "node-1", "node-2"]
        assert name not in {p.metadata.name for p in cluster.pods("default")}
    assert "FailedDaemonPod" in {event.reason for event in await cluster.events("agent")}


async def test_on_delete_leaves_the_update_to_the_user(cluster: Cluster) -> None:
    await cluster.apply(daemon_set(update_strategy=DaemonSetUpdateStrategy(type="OnDelete")))
    await cluster.run_for(minutes=1)
    await change(cluster, template=of_image("registry.test/app:2"))
    await cluster.run_for(minutes=2)
    assert images(cluster) == {"app:1"}
    for victim in cluster.pods("default"):
        await cluster.client.delete(victim)
    await cluster.run_for(minutes=2)
    assert images(cluster) == {"app:2"}

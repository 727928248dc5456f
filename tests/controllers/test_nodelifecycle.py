"""Nodes that fall silent. The cluster is real: agents die by being stopped, containers are scripts."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from pybernetes.api.core.podstate import is_ready
from pybernetes.api.types.core_v1 import Node, NodeAddress, NodeCondition, Pod, Taint
from pybernetes.apimachinery.errors import Invalid
from pybernetes.controllers.nodelifecycle.health import (
    plan_taints,
    silent_status,
)
from pybernetes.controllers.nodelifecycle.zones import Zones, ZoneState, zone_of, zone_state
from pybernetes.storage import MemoryStore
from pybernetes.testing import Cluster
from pybernetes.testing.builders import EPOCH, deployment, node, pod, taint, toleration
from tests.controllers.extra import names, said_of

NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"


# --- decisions ------------------------------------------------------------------------------------


def with_conditions(name: str = "node", *, taints: tuple[str, ...] = (), **conditions: str) -> Node:
    """`taints` as key:effect."""
    found = [taint(*_split(text)) for text in taints]
    plain = node(name, taints=found)
    said = tuple(NodeCondition(type=t, status=s) for t, s in conditions.items())
    return Node(
        metadata=plain.metadata, spec=plain.spec, status=type(plain.status)(conditions=said)
    )


def _split(text: str) -> tuple[str, str, str]:
    key, _, effect = text.partition(":")
    return key, "", effect


@pytest.mark.parametrize(
    ("conditions", "present", "wanted"),
    [
        pytest.param({"Ready": "True"}, (), [], id="ready"),
        pytest.param(
            {"Ready": "False"},
            (),
            [f"{NOT_READY}:NoExecute", f"{NOT_READY}:NoSchedule"],
            id="not ready",
        ),
        pytest.param(
            {"Ready": "Unknown"},
            (f"{NOT_READY}:NoExecute", f"{NOT_READY}:NoSchedule"),
            [f"{UNREACHABLE}:NoExecute", f"{UNREACHABLE}:NoSchedule"],
            id="silent after not ready",
        ),
        pytest.param(
            {"Ready": "True", "MemoryPressure": "True", "DiskPressure": "False"},
            ("mine:NoExecute",),
            ["mine:NoExecute", "node.kubernetes.io/memory-pressure:NoSchedule"],
            id="pressure, and a taint of somebody else",
        ),
        pytest.param(
            {"Ready": "True"},
            (f"{UNREACHABLE}:NoExecute", f"{UNREACHABLE}:NoSchedule", "mine:NoSchedule"),
            ["mine:NoSchedule"],
            id="recovered",
        ),
        pytest.param({}, (), [f"{NOT_READY}:NoSchedule"], id="never spoke"),
    ],
)
def test_taints_follow_conditions(
    conditions: dict[str, str], present: tuple[str, ...], wanted: list[str]
) -> None:
    plan = plan_taints(with_conditions(taints=present, **conditions), EPOCH)
    assert [f"{t.key}:{t.effect}" for t in plan.taints] == wanted


def test_taints_that_are_there_keep_their_time() -> None:
    first = plan_taints(with_conditions(Ready="False"), EPOCH).taints
    again = with_conditions(Ready="False")
    again = Node(metadata=again.metadata, spec=type(again.spec)(taints=first), status=again.status)
    assert plan_taints(again, EPOCH.replace(year=2030)).taints == first


def test_only_a_first_taint_needs_leave_to_empty() -> None:
    assert plan_taints(with_conditions(Ready="False"), EPOCH).begins_emptying
    swapped = with_conditions(taints=(f"{NOT_READY}:NoExecute",), Ready="Unknown")
    assert not plan_taints(swapped, EPOCH).begins_emptying
    plan = plan_taints(with_conditions(Ready="False"), EPOCH, may_empty=False)
    assert [t.effect for t in plan.taints] == ["NoSchedule"]


def test_silence_makes_every_condition_unknown() -> None:
    status = silent_status(with_conditions(Ready="True", DiskPressure="Unknown"), EPOCH)
    said = {c.type: (c.status, c.reason, c.message) for c in status.conditions}
    never = ("Unknown", "NodeStatusNeverUpdated", "Kubelet never posted node status.")
    assert said == {
        "Ready": ("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status."),
        "DiskPressure": ("Unknown", "", ""),
        "MemoryPressure": never,
        "PIDPressure": never,
    }


@pytest.mark.parametrize(
    ("ready", "not_ready", "state"),
    [
        (0, 0, ZoneState.NORMAL),
        (0, 1, ZoneState.FULL),
        (1, 1, ZoneState.NORMAL),
        (0, 9, ZoneState.FULL),
        (1, 2, ZoneState.NORMAL),
        (2, 3, ZoneState.PARTIAL),
        (3, 3, ZoneState.NORMAL),
    ],
)
def test_a_zone_is_judged_by_how_many_are_ready(
    ready: int, not_ready: int, state: ZoneState
) -> None:
    assert zone_state(ready, not_ready) is state


def zones_of(**counts: tuple[int, int]) -> Zones:
    """`name=(ready, not ready)`; nodes are called `<zone>-<number>`, the ready ones first."""
    zones = Zones()
    for zone, (ready, not_ready) in counts.items():
        for number in range(ready + not_ready):
            zones.note(f"{zone}-{number}", (zone, number < ready))
    return zones


def test_nodes_are_emptied_one_in_ten_seconds() -> None:
    zones = zones_of(a=(3, 2))
    assert zones.seconds_to_wait("a-3", 100.0) == 0.0
    assert zones.seconds_to_wait("a-4", 104.0) == pytest.approx(6.0)
    assert zones.seconds_to_wait("a-4", 110.0) == 0.0


def test_a_small_zone_that_mostly_fails_is_left_alone() -> None:
    assert zones_of(a=(1, 3), b=(1, 0)).seconds_to_wait("a-2", 0.0) is None


def test_a_large_zone_that_mostly_fails_is_emptied_slowly() -> None:
    zones = zones_of(a=(10, 41))
    assert zones.seconds_to_wait("a-20", 0.0) == 0.0
    assert zones.seconds_to_wait("a-21", 0.0) == pytest.approx(100.0)


def test_a_dead_zone_among_living_ones_is_emptied() -> None:
    zones = zones_of(a=(0, 4), b=(1, 0))
    assert not zones.all_down
    assert zones.seconds_to_wait("a-0", 0.0) == 0.0


def test_nothing_is_emptied_when_nothing_is_ready_anywhere() -> None:
    zones = zones_of(a=(0, 2), b=(0, 1))
    assert zones.all_down
    assert zones.seconds_to_wait("a-0", 0.0) is None


def test_only_a_change_of_pace_is_news() -> None:
    zones = zones_of(a=(4, 0))
    assert not zones.note("a-0", ("a", False))
    assert not zones.note("a-1", ("a", False))
    assert zones.note("a-2", ("a", False))
    assert zones.note("a-2", None)
    assert zone_of(node(labels={"topology.kubernetes.io/zone": "a"})) == "/a"


# --- in a cluster ---------------------------------------------------------------------------------


@pytest.mark.cluster(nodes=3)
async def test_a_silent_node_is_marked_shunned_and_emptied(cluster: Cluster) -> None:
    await cluster.apply(deployment("web", replicas=3))
    await cluster.run_for(seconds=20)
    await cluster.nodes.stop("node-1")
    await cluster.run_for(seconds=29)
    assert (await ready_of(cluster, "node-1")).status == "True"
    await cluster.run_for(seconds=12)
    condition = await ready_of(cluster, "node-1")
    assert (condition.status, condition.reason) == ("Unknown", "NodeStatusUnknown")
    assert await taints_of(cluster, "node-1") == {
        (UNREACHABLE, "NoSchedule"),
        (UNREACHABLE, "NoExecute"),
    }
    assert Counter(map(is_ready, cluster.pods("default"))) == {True: 2, False: 1}
    assert "NodeNotReady: Node node-1 status is now: NodeNotReady" in await said_of(
        cluster, "node-1"
    )
    # The default tolerations of a pod last five minutes.
    await cluster.run_for(minutes=4)
    assert len(cluster.pods("default")) == 3
    await cluster.run_for(minutes=2)
    (going,) = (p for p in cluster.pods("default") if p.spec.node_name == "node-1")
    assert going.metadata.deletion_timestamp is not None
    assert Counter(p.spec.node_name == "node-1" for p in cluster.pods("default")) == {
        False: 3,
        True: 1,
    }


@pytest.mark.cluster(nodes=3)
async def test_a_node_that_speaks_again_is_as_before(cluster: Cluster) -> None:
    await cluster.apply(deployment("web", replicas=3))
    await cluster.run_for(seconds=20)
    before = {p.metadata.uid for p in cluster.pods("default")}
    await cluster.nodes.stop("node-1")
    await cluster.run_for(minutes=2)
    cluster.nodes.add("node-1")
    await cluster.run_for(minutes=1)
    assert (await ready_of(cluster, "node-1")).status == "True"
    assert await taints_of(cluster, "node-1") == set()
    assert {p.metadata.uid for p in cluster.pods("default")} == before
    assert all(map(is_ready, cluster.pods("default")))
    await cluster.run_for(minutes=10)
    assert {p.metadata.uid for p in cluster.pods("default")} == before


@pytest.mark.cluster(nodes=1)
async def test_the_only_node_is_not_emptied(cluster: Cluster) -> None:
    await cluster.apply(deployment("web", replicas=1))
    await cluster.run_for(seconds=20)
    await cluster.nodes.stop("node-0")
    await cluster.run_for(minutes=20)
    assert await taints_of(cluster, "node-0") == {(UNREACHABLE, "NoSchedule")}
    (only,) = cluster.pods("default")
    assert only.metadata.deletion_timestamp is None


@pytest.mark.cluster(nodes=2)
async def test_after_an_outage_everybody_gets_the_full_grace(cluster: Cluster) -> None:
    for name in ("node-0", "node-1"):
        await cluster.nodes.stop(name)
    await cluster.run_for(minutes=5)
    assert {effect for _, effect in await taints_of(cluster, "node-0")} == {"NoSchedule"}
    cluster.nodes.add("node-0")
    await cluster.run_for(seconds=30)
    assert await taints_of(cluster, "node-0") == set()


@pytest.mark.cluster(nodes=12)
async def test_nodes_that_fail_together_are_emptied_one_by_one(cluster: Cluster) -> None:
    await cluster.run_for(minutes=1)
    silent = [f"node-{number}" for number in range(6)]
    for name in silent:
        await cluster.nodes.stop(name)
    await cluster.run_for(seconds=45)
    emptied = []
    for _ in range(8):
        emptied.append(sum([len(await taints_of(cluster, name)) == 2 for name in silent]))
        await cluster.run_for(seconds=10)
    assert emptied == [1, 2, 3, 4, 5, 6, 6, 6]


@pytest.mark.cluster(nodes=0)
async def test_a_node_that_never_speaks_is_unknown_after_a_minute(cluster: Cluster) -> None:
    plain = node("mute")
    await cluster.apply(Node(metadata=plain.metadata))
    await cluster.run_for(seconds=59)
    assert (await cluster.get(Node, "mute")).status.conditions == ()
    await cluster.run_for(seconds=2)
    assert (await ready_of(cluster, "mute")).reason == "NodeStatusNeverUpdated"


@pytest.mark.cluster(nodes=3)
async def test_a_quiet_cluster_writes_nothing_but_leases(cluster: Cluster) -> None:
    await cluster.run_for(minutes=1)
    before = {name: await version_of(cluster, name) for name in await names(cluster, Node)}
    await cluster.run_for(minutes=3)
    assert {name: await version_of(cluster, name) for name in before} == before


@pytest.mark.cluster(nodes=0)
async def test_a_node_may_be_registered_with_its_status(cluster: Cluster) -> None:
    (made,) = await cluster.apply(node("whole", cpu="3", address="192.0.2.7"))
    assert made.status.capacity["cpu"] == "3"
    assert made.status.addresses == (NodeAddress(type="InternalIP", address="192.0.2.7"),)
    with pytest.raises(Invalid):
        await cluster.client.create(node("wrong", cpu="-3"))
    (other,) = await cluster.apply(pod("p", phase="Running", ip="10.0.0.1"))
    assert (other.status.phase, other.status.pod_ip) == ("Pending", "")


# --- taint eviction -------------------------------------------------------------------------------


@pytest.mark.cluster(nodes=0)
@pytest.mark.parametrize(
    ("seconds", "gone_after"),
    [pytest.param(None, 0, id="no toleration"), pytest.param(30, 30, id="for a while")],
)
async def test_pods_leave_a_tainted_node(
    cluster: Cluster, seconds: int | None, gone_after: int
) -> None:
    await cluster.apply(node("here"))
    mine = (toleration("mine", effect="NoExecute", toleration_seconds=seconds),) if seconds else ()
    await cluster.apply(
        pod("goes", node="here", tolerations=mine, termination_grace_period_seconds=0)
    )
    await cluster.apply(pod("stays", node="here", tolerations=(toleration("mine"),)))
    await cluster.run_for(seconds=1)
    await add_taint(cluster, "here", "mine")
    if gone_after:
        await cluster.run_for(seconds=gone_after - 1)
        assert await names(cluster, Pod) == ["goes", "stays"]
    await cluster.run_for(seconds=2)
    left = {p.metadata.name: p for p in cluster.pods("default")}
    assert "goes" not in left or left["goes"].metadata.deletion_timestamp is not None
    assert left["stays"].metadata.deletion_timestamp is None
    said = await said_of(cluster, "goes")
    assert "TaintManagerEviction: Marking for deletion Pod default/goes" in said


@pytest.mark.cluster(nodes=0)
async def test_a_taint_that_goes_spares_the_pods(cluster: Cluster) -> None:
    await cluster.apply(node("here"))
    patient = (toleration("mine", effect="NoExecute", toleration_seconds=60),)
    await cluster.apply(pod("lucky", node="here", tolerations=patient))
    await add_taint(cluster, "here", "mine")
    await cluster.run_for(seconds=30)
    await cluster.client.patch(Node, "here", patch={"spec": {"taints": None}})
    await cluster.run_for(minutes=2)
    (lucky,) = cluster.pods("default")
    assert lucky.metadata.deletion_timestamp is None
    said = await said_of(cluster, "lucky")
    assert "TaintManagerEviction: Cancelling deletion of Pod default/lucky" in said


async def ready_of(cluster: Cluster, name: str) -> NodeCondition:
    found = await cluster.get(Node, name)
    (condition,) = (c for c in found.status.conditions if c.type == "Ready")
    return condition


async def taints_of(cluster: Cluster, name: str) -> set[tuple[str, str]]:
    return {(t.key, t.effect) for t in (await cluster.get(Node, name)).spec.taints}


async def version_of(cluster: Cluster, name: str) -> str:
    return (await cluster.get(Node, name)).metadata.resource_version


async def add_taint(cluster: Cluster, name: str, key: str) -> None:
    taints = [*(await cluster.get(Node, name)).spec.taints, taint(key, effect="NoExecute")]
    await cluster.client.patch(Node, name, patch={"spec": {"taints": taints}})


# --- across a restart -----------------------------------------------------------------------------


async def test_a_server_that_was_away_gives_every_node_time_to_speak() -> None:
    store = MemoryStore()
    async with Cluster(nodes=2, store=store) as cluster:
        await cluster.run_for(minutes=1)
        ended = cluster.clock.now()
    async with Cluster(nodes=0, store=store) as cluster:
        # Entering waits until no node is ready: that is when the last one is given up.
        waited = cluster.clock.now() - ended
        assert timedelta(seconds=40) <= waited <= timedelta(seconds=42)
        assert (await ready_of(cluster, "node-0")).reason == "NodeStatusUnknown"
        await cluster.run_for(minutes=1)
        assert {effect for _, effect in await taints_of(cluster, "node-0")} == {"NoSchedule"}


async def test_a_pod_that_comes_later_has_its_own_time() -> None:
    node_taint = Taint(key=UNREACHABLE, effect="NoExecute", time_added=EPOCH - timedelta(minutes=4))
    plain = node("gone", taints=[node_taint])
    condition = NodeCondition(type="Ready", status="Unknown", reason="NodeStatusUnknown")
    async with Cluster(nodes=1) as cluster:
        await cluster.apply(plain)
        await cluster.client.patch(
            Node, "gone", patch={"status": {"conditions": [condition]}}, subresource="status"
        )
        patient = toleration(UNREACHABLE, effect="NoExecute", toleration_seconds=300)
        await cluster.apply(pod("p", node="gone", tolerations=(patient,)))
        # It came after the taint, so its five minutes begin with it.
        await cluster.run_for(minutes=4)
        (found,) = cluster.pods("default")
        assert found.metadata.deletion_timestamp is None
        await cluster.run_for(minutes=2)
        assert all(p.metadata.deletion_timestamp for p in cluster.pods("default"))

"""What every namespace has, and how one goes. The cluster is real but for containers."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybernetes.api.types.core_v1 import (
    ConfigMap,
    Namespace,
    Node,
    Pod,
    Secret,
    ServiceAccount,
)
from pybernetes.apimachinery.errors import Forbidden
from pybernetes.cluster.controlplane import ControlPlaneOptions
from pybernetes.controllers import ControllerOptions
from pybernetes.controllers.namespace import Leftovers, conditions_for
from pybernetes.controllers.nodeipam import free_range
from pybernetes.testing.builders import (
    EPOCH,
    config_map,
    deployment,
    metadata,
    namespace,
    node,
    pod,
    secret,
)
from tests.controllers.extra import names, said_of

if TYPE_CHECKING:
    from pybernetes.testing import Cluster


def test_conditions_of_a_namespace_that_is_stuck() -> None:
    left = Leftovers()
    left.remaining.update({"pods": 2, "widgets.example.com": 1})
    left.finalizers.update({"example.com/hold": 1})
    said = {c.type: (c.status, c.reason, c.message) for c in conditions_for((), left, EPOCH)}
    assert said == {
        "NamespaceDeletionDiscoveryFailure": (
            "False",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        "NamespaceDeletionGroupVersionParsingFailure": (
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        "NamespaceDeletionContentFailure": (
            "False",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        "NamespaceContentRemaining": (
            "True",
            "SomeResourcesRemain",
            "Some resources are remaining: pods has 2 resource instances, "
            "widgets.example.com has 1 resource instances",
        ),
        "NamespaceFinalizersRemaining": (
            "True",
            "SomeFinalizersRemain",
            "Some content in the namespace has finalizers remaining: "
            "example.com/hold in 1 resource instances",
        ),
    }


async def test_a_new_namespace_has_what_pods_need(cluster: Cluster) -> None:
    await cluster.apply(namespace("team"))
    await cluster.run_for(seconds=1)
    assert await names(cluster, ServiceAccount, "team") == ["default"]
    assert await names(cluster, ConfigMap, "team") == ["kube-root-ca.crt"]


async def test_what_a_namespace_needs_comes_back(cluster: Cluster) -> None:
    await cluster.client.delete(ServiceAccount, "default", "default")
    await cluster.client.delete(ConfigMap, "kube-root-ca.crt", "default")
    await cluster.run_for(seconds=1)
    assert await names(cluster, ServiceAccount, "default") == ["default"]
    bundle = {"data": {"ca.crt": "mine", "more": "x"}}
    await cluster.client.patch(ConfigMap, "kube-root-ca.crt", "default", patch=bundle)
    await cluster.run_for(seconds=1)
    assert set((await cluster.get(ConfigMap, "kube-root-ca.crt")).data) == {"ca.crt"}


async def test_a_deleted_namespace_takes_everything_along(cluster: Cluster) -> None:
    await cluster.apply(namespace("team"))
    await cluster.run_for(seconds=1)
    await cluster.apply(
        deployment("web", "team", replicas=2), config_map("c", "team"), secret("s", "team")
    )
    await cluster.run_for(seconds=10)
    assert len(cluster.pods("team", phase="Running")) == 2
    await cluster.client.delete(Namespace, "team")
    assert (await cluster.get(Namespace, "team")).status.phase == "Terminating"
    with pytest.raises(Forbidden):
        await cluster.client.create(config_map("late", "team"))
    # Nobody waits for longer than the pods take.
    await cluster.run_for(seconds=5)
    assert "team" not in await names(cluster, Namespace)
    for kind in (Pod, ConfigMap, Secret, ServiceAccount):
        assert await names(cluster, kind, "team") == []


@pytest.mark.cluster(nodes=0)
async def test_a_finalizer_holds_a_namespace_and_is_named(cluster: Cluster) -> None:
    await cluster.apply(namespace("team"))
    held = ConfigMap(metadata=metadata("held", "team", finalizers=("test.io/hold",)))
    await cluster.apply(held)
    await cluster.client.delete(Namespace, "team")
    await cluster.run_for(minutes=1)
    said = {c.type: c.message for c in (await cluster.get(Namespace, "team")).status.conditions}
    assert said["NamespaceFinalizersRemaining"].endswith("test.io/hold in 1 resource instances")
    await cluster.client.patch(ConfigMap, "held", "team", patch={"metadata": {"finalizers": None}})
    await cluster.run_for(seconds=20)
    assert "team" not in await names(cluster, Namespace)


@pytest.mark.cluster(nodes=0)
async def test_a_namespace_with_pods_that_hang_waits_for_them(cluster: Cluster) -> None:
    await cluster.apply(namespace("team"), node("dead", ready=False))
    await cluster.run_for(seconds=1)
    await cluster.apply(pod("hangs", "team", node="dead"))
    await cluster.client.delete(Namespace, "team")
    await cluster.run_for(minutes=10)
    assert await names(cluster, Pod, "team") == ["hangs"]
    assert "team" in await names(cluster, Namespace)
    # What a pod uses is there as long as the pod is.
    assert await names(cluster, ConfigMap, "team") == ["kube-root-ca.crt"]
    await cluster.client.delete(Pod, "hangs", "team", grace_seconds=0)
    await cluster.run_for(seconds=20)
    assert "team" not in await names(cluster, Namespace)


# --- node ranges ----------------------------------------------------------------------------------

WHOLE = IPv4Network("10.244.0.0/20")


@pytest.mark.parametrize(
    ("taken", "free"),
    [
        ([], "10.244.0.0/24"),
        (["10.244.0.0/24"], "10.244.1.0/24"),
        (["10.244.1.0/24"], "10.244.0.0/24"),
        (["10.244.0.0/25"], "10.244.1.0/24"),
        (["10.244.0.0/23", "10.244.3.0/24"], "10.244.2.0/24"),
        (["192.168.0.0/16"], "10.244.0.0/24"),
        (["10.0.0.0/8"], None),
    ],
)
def test_the_first_free_range_is_given(taken: list[str], free: str | None) -> None:
    found = free_range(WHOLE, 24, [IPv4Network(t) for t in taken])
    assert found == (None if free is None else IPv4Network(free))


@given(st.sets(st.integers(0, 15)))
def test_a_range_is_free_and_found_if_there_is_one(numbers: set[int]) -> None:
    blocks = list(WHOLE.subnets(new_prefix=24))
    taken = [blocks[number] for number in numbers]
    found = free_range(WHOLE, 24, taken)
    assert found == next((block for block in blocks if block not in taken), None)


SMALL = ControlPlaneOptions(
    controller_options=ControllerOptions(pod_network=IPv4Network("10.9.0.0/23"))
)


@pytest.mark.cluster(nodes=0, options=SMALL)
async def test_nodes_get_ranges_until_there_are_none(cluster: Cluster) -> None:
    await cluster.apply(node("fixed", pod_cidr="10.9.0.0/24"), node("a"))
    await cluster.run_for(seconds=1)
    assert (await cluster.get(Node, "a")).spec.pod_cidrs == ("10.9.1.0/24",)
    await cluster.apply(node("b"))
    await cluster.run_for(seconds=1)
    assert (await cluster.get(Node, "b")).spec.pod_cidr == ""
    said = await said_of(cluster, "b")
    assert "CIDRNotAvailable: Node b status is now: CIDRNotAvailable" in said
    await cluster.client.delete(Node, "fixed")
    await cluster.run_for(seconds=1)
    assert (await cluster.get(Node, "b")).spec.pod_cidr == "10.9.0.0/24"

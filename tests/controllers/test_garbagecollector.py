"""Garbage collection: the graph by a property, plans by a table, then a cluster without nodes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pybernetes.api.types.apps_v1 import Deployment, ReplicaSet
from pybernetes.api.types.core_v1 import ConfigMap, Namespace, Pod, Secret
from pybernetes.api.types.meta_v1 import ObjectMeta, OwnerReference
from pybernetes.api.types.rbac_v1 import ClusterRole
from pybernetes.apimachinery.errors import NotFound
from pybernetes.client import metadata_kind
from pybernetes.cluster.controlplane import ControlPlaneOptions
from pybernetes.controllers.garbagecollector.graph import Graph, GraphNode, Identity
from pybernetes.controllers.garbagecollector.plan import (
    Action,
    OwnerState,
    Plan,
    plan_collection,
)
from pybernetes.storage import MemoryStore
from pybernetes.testing import Cluster
from pybernetes.testing.builders import EPOCH, deployment, metadata, namespace
from tests.controllers.extra import names, said_of

pytestmark = pytest.mark.cluster(nodes=0)

SOLID, ABSENT, WAITING = OwnerState.SOLID, OwnerState.ABSENT, OwnerState.WAITING


# --- decisions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "finalizers", "has_dependents", "plan"),
    [
        pytest.param([], (), False, Plan(), id="nobody owns it"),
        pytest.param([SOLID], (), False, Plan(), id="its owner is there"),
        pytest.param([ABSENT], (), False, Plan(Action.DELETE, (), "Background"), id="gone"),
        pytest.param(
            [SOLID, ABSENT, WAITING],
            (),
            False,
            Plan(Action.DROP_REFERENCES, ("1", "2")),
            id="one of several is there",
        ),
        pytest.param(
            [WAITING], (), True, Plan(Action.DELETE, (), "Foreground"), id="waiting, with its own"
        ),
        pytest.param(
            [WAITING], (), False, Plan(Action.DELETE, (), "Background"), id="waiting, a leaf"
        ),
        pytest.param([ABSENT], ("orphan",), False, Plan(Action.DELETE, (), "Orphan"), id="orphan"),
        pytest.param(
            [ABSENT],
            ("foregroundDeletion",),
            False,
            Plan(Action.DELETE, (), "Foreground"),
            id="foreground",
        ),
    ],
)
def test_what_becomes_of_an_object(
    states: list[OwnerState], finalizers: tuple[str, ...], has_dependents: bool, plan: Plan
) -> None:
    node = GraphNode(Identity("v1", "ConfigMap", "default", "x", "uid"), finalizers=finalizers)
    owners = [(str(number), state) for number, state in enumerate(states)]
    assert plan_collection(node, owners, has_dependents=has_dependents) == plan


UIDS = st.sampled_from("abcde")
STEPS = st.lists(
    st.tuples(UIDS, st.one_of(st.none(), st.tuples(st.sets(UIDS, max_size=3), st.booleans()))),
    max_size=40,
)


@given(STEPS)
@settings(deadline=None)
def test_the_graph_holds_its_invariants_and_forgets_what_is_gone(
    steps: list[tuple[str, tuple[set[str], bool] | None]],
) -> None:
    graph = Graph()
    for uid, state in steps:
        if state is None:
            list(graph.lost(uid))
        else:
            owners, deleting = state
            list(
                graph.saw(
                    Identity("v1", "ConfigMap", "default", uid, uid),
                    ObjectMeta(
                        uid=uid,
                        owner_references=tuple(
                            OwnerReference(api_version="v1", kind="ConfigMap", name=o, uid=o)
                            for o in sorted(owners - {uid})
                        ),
                        deletion_timestamp=EPOCH if deleting else None,
                    ),
                )
            )
        graph.check_invariants()
    for uid in "abcde":
        list(graph.lost(uid))
        graph.check_invariants()
    assert len(graph) == 0


# --- in a cluster ---------------------------------------------------------------------------------


def owned(name: str, *owners: Any, block: bool | None = None, **meta: Any) -> ConfigMap:
    references = tuple(
        OwnerReference(
            api_version=owner.api_version,
            kind=owner.kind,
            name=owner.metadata.name,
            uid=owner.metadata.uid,
            block_owner_deletion=block,
        )
        for owner in owners
    )
    return ConfigMap(metadata=metadata(name, owner_references=references, **meta))


def reference(kind: str, name: str, uid: str, api_version: str = "v1") -> OwnerReference:
    return OwnerReference(api_version=api_version, kind=kind, name=name, uid=uid)


async def config_maps(cluster: Cluster) -> list[str]:
    return [n for n in await names(cluster, ConfigMap, "default") if n != "kube-root-ca.crt"]


@pytest.mark.parametrize("propagation", ["Background", "Foreground", "Orphan", ""])
async def test_deleting_a_deployment(cluster: Cluster, propagation: str) -> None:
    await cluster.apply(deployment("web", replicas=2))
    await cluster.run_for(seconds=2)
    assert len(await names(cluster, Pod)) == 2
    await cluster.client.delete(Deployment, "web", "default", propagation=propagation)
    await cluster.run_for(seconds=2)
    left = [len(await names(cluster, kind)) for kind in (Deployment, ReplicaSet, Pod)]
    assert left == ([0, 1, 2] if propagation == "Orphan" else [0, 0, 0])
    if propagation == "Orphan":
        (found,) = (await cluster.client.list(ReplicaSet, "default")).items
        assert found.metadata.owner_references == ()


async def test_an_object_stays_as_long_as_one_owner_does(cluster: Cluster) -> None:
    (first, second) = await cluster.apply(owned("first"), owned("second"))
    await cluster.apply(owned("child", first, second))
    await cluster.client.delete(first)
    await cluster.run_for(seconds=2)
    child = await cluster.get(ConfigMap, "child")
    assert [o.name for o in child.metadata.owner_references] == ["second"]
    await cluster.client.delete(second)
    await cluster.run_for(seconds=2)
    assert await config_maps(cluster) == []


async def test_an_owner_made_anew_under_its_name_is_another(cluster: Cluster) -> None:
    (owner,) = await cluster.apply(owned("owner"))
    child = owned("child", owner)
    await cluster.client.delete(owner)
    await cluster.apply(owned("owner"))
    await cluster.apply(child)
    await cluster.run_for(seconds=2)
    assert await config_maps(cluster) == ["owner"]


async def test_an_owner_that_never_was_leaves_nothing_behind(cluster: Cluster) -> None:
    nobody = reference("ConfigMap", "nobody", "no-such-uid")
    await cluster.apply(ConfigMap(metadata=metadata("child", owner_references=(nobody,))))
    await cluster.run_for(seconds=2)
    assert await config_maps(cluster) == []


async def test_an_owner_of_an_unknown_kind_condemns_nobody(cluster: Cluster) -> None:
    strange = reference("Widget", "w", "some-uid", "example.com/v1")
    await cluster.apply(ConfigMap(metadata=metadata("child", owner_references=(strange,))))
    await cluster.run_for(minutes=30)
    assert await config_maps(cluster) == ["child"]


async def test_owners_in_other_namespaces_are_none(cluster: Cluster) -> None:
    await cluster.apply(namespace("other"))
    await cluster.run_for(seconds=1)
    (owner,) = await cluster.apply(ConfigMap(metadata=metadata("owner", "other")))
    rightful = metadata(
        "rightful", "other", owner_references=owned("x", owner).metadata.owner_references
    )
    await cluster.apply(ConfigMap(metadata=rightful))
    await cluster.apply(owned("child", owner))
    await cluster.run_for(seconds=2)
    assert await config_maps(cluster) == []
    assert "rightful" in await names(cluster, ConfigMap, "other")
    (said,) = await said_of(cluster, "child")
    assert said.startswith("OwnerRefInvalidNamespace: ownerRef [v1/ConfigMap, namespace: default")


async def test_cluster_scoped_objects_have_no_owner_in_a_namespace(cluster: Cluster) -> None:
    (owner,) = await cluster.apply(owned("owner"))
    mistaken = reference("ConfigMap", "owner", owner.metadata.uid)
    await cluster.apply(ClusterRole(metadata=metadata("role", "", owner_references=(mistaken,))))
    absent = reference("ConfigMap", "gone", "no-such-uid")
    await cluster.apply(ClusterRole(metadata=metadata("other", "", owner_references=(absent,))))
    await cluster.run_for(minutes=5)
    assert {"role", "other"} <= set(await names(cluster, ClusterRole))


async def test_a_namespace_may_own(cluster: Cluster) -> None:
    await cluster.apply(namespace("owner"))
    owner = await cluster.get(Namespace, "owner")
    await cluster.apply(owned("child", owner))
    await cluster.run_for(seconds=1)
    assert await config_maps(cluster) == ["child"]
    await cluster.client.delete(owner)
    await cluster.run_for(seconds=30)
    assert await config_maps(cluster) == []


async def test_foreground_waits_for_those_that_block(cluster: Cluster) -> None:
    (owner,) = await cluster.apply(owned("owner"))
    held = {"finalizers": ("test.io/hold",)}
    await cluster.apply(owned("blocks", owner, block=True, **held))
    await cluster.apply(owned("does-not", owner, block=False, **held))
    await cluster.client.delete(owner, propagation="Foreground")
    await cluster.run_for(seconds=2)
    assert await config_maps(cluster) == ["blocks", "does-not", "owner"]
    assert (await cluster.get(ConfigMap, "owner")).metadata.finalizers == ("foregroundDeletion",)
    await cluster.client.patch(
        ConfigMap, "blocks", "default", patch={"metadata": {"finalizers": None}}
    )
    await cluster.run_for(seconds=2)
    assert await config_maps(cluster) == ["does-not"]


async def test_foreground_goes_down_the_whole_tree(cluster: Cluster) -> None:
    (root,) = await cluster.apply(owned("root"))
    (branch,) = await cluster.apply(owned("branch", root, block=True))
    await cluster.apply(owned("leaf", branch, block=True, finalizers=("test.io/hold",)))
    await cluster.client.delete(root, propagation="Foreground")
    await cluster.run_for(seconds=2)
    assert await config_maps(cluster) == ["branch", "leaf", "root"]
    await cluster.client.patch(
        ConfigMap, "leaf", "default", patch={"metadata": {"finalizers": None}}
    )
    await cluster.run_for(seconds=2)
    assert await config_maps(cluster) == []


async def test_two_that_own_each_other_go_together(cluster: Cluster) -> None:
    (first,) = await cluster.apply(owned("first"))
    (second,) = await cluster.apply(owned("second", first, block=True))
    await cluster.client.patch(
        ConfigMap,
        "first",
        "default",
        patch={
            "metadata": {"ownerReferences": [reference("ConfigMap", "second", second.metadata.uid)]}
        },
    )
    await cluster.client.delete(ConfigMap, "first", "default", propagation="Background")
    await cluster.run_for(seconds=5)
    assert await config_maps(cluster) == []


async def test_many_dependents_go(cluster: Cluster) -> None:
    (owner,) = await cluster.apply(owned("owner"))
    for number in range(150):
        kind = itertools.cycle([ConfigMap, Secret])
        meta = owned(f"c-{number}", owner).metadata
        await cluster.client.create(next(kind)(metadata=meta))
    await cluster.client.delete(owner)
    await cluster.run_for(seconds=5)
    assert await config_maps(cluster) == []


async def test_owners_that_are_seen_are_not_asked_for(cluster: Cluster) -> None:
    (owner,) = await cluster.apply(owned("owner"))
    asked = requests_so_far(cluster, "GET", "configmaps")
    await cluster.apply(*(owned(f"c-{number}", owner) for number in range(5)))
    await cluster.run_for(seconds=5)
    # Each `apply` asks once itself.
    assert requests_so_far(cluster, "GET", "configmaps") == asked + 5


async def test_kinds_that_are_cached_are_not_cached_again(cluster: Cluster) -> None:
    caches = cluster.plane.caches
    assert caches.known("", "pods") is caches.of(Pod)
    for group, plural in (("", "pods"), ("apps", "replicasets"), ("", "namespaces")):
        kind = metadata_kind(group, "v1", plural, kind="", namespaced=plural != "namespaces")
        assert caches.of(kind).statistics().subscribers == 0


async def test_at_rest_nothing_is_asked(cluster: Cluster) -> None:
    (owner,) = await cluster.apply(owned("owner"))
    await cluster.apply(owned("child", owner), deployment("web", replicas=0))
    await cluster.run_for(minutes=1)
    before = requests_so_far(cluster)
    await cluster.run_for(minutes=10)
    assert requests_so_far(cluster) == before


def requests_so_far(cluster: Cluster, verb: str = "", resource: str = "") -> float:
    return sum(
        float(line.rpartition(" ")[2])
        for line in cluster.plane.server.request_total.lines()
        if f'verb="{verb}' in line and f'resource="{resource}' in line
    )


# --- against a model ------------------------------------------------------------------------------

OBJECTS = 7


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[set[int]], list[tuple[int, str]]]:
    """The owners of each object, among those made before it; then what is deleted, and how."""
    owners = [
        draw(st.sets(st.integers(0, number - 1), max_size=2)) if number else set()
        for number in range(OBJECTS)
    ]
    policies = st.sampled_from(["Background", "Foreground", "Orphan"])
    deletions = draw(
        st.lists(st.tuples(st.integers(0, OBJECTS - 1), policies), min_size=1, max_size=4)
    )
    return owners, deletions


def survivors(owners: list[set[int]], deletions: list[tuple[int, str]]) -> dict[int, set[int]]:
    """What is left, and who still owns it."""
    there = {number: set(of) for number, of in enumerate(owners)}

    def delete(number: int, policy: str) -> None:
        if there.pop(number, None) is None:
            return
        for other in [other for other, of in there.items() if number in of]:
            if other not in there:
                continue
            there[other].discard(number)
            if policy != "Orphan" and not there[other]:
                delete(other, policy)

    for number, policy in deletions:
        delete(number, policy)
    return there


@pytest.mark.slow
@given(histories(), st.booleans())
@settings(max_examples=25, deadline=None)
async def test_what_is_left_is_what_somebody_owns(
    history: tuple[list[set[int]], list[tuple[int, str]]], at_once: bool
) -> None:
    owners, deletions = history
    async with Cluster(nodes=0) as cluster:
        made: list[ConfigMap] = []
        for number, of in enumerate(owners):
            child = owned(f"c-{number}", *(made[owner] for owner in sorted(of)), block=True)
            made.append(await cluster.client.create(child))
        for number, policy in deletions[:1] if at_once else deletions:
            try:
                await cluster.client.delete(made[number], propagation=policy)
            except NotFound:
                continue
            if not at_once:
                await cluster.run_for(seconds=5)
        await cluster.run_for(seconds=30)
        wanted = survivors(owners, deletions[:1] if at_once else deletions)
        found = {
            int(o.metadata.name[2:]): {int(r.name[2:]) for r in o.metadata.owner_references}
            for o in (await cluster.client.list(ConfigMap, "default")).items
            if o.metadata.name.startswith("c-")
        }
        assert found == wanted


# --- across a restart -----------------------------------------------------------------------------


async def test_a_deletion_in_the_foreground_outlives_the_server() -> None:
    store = MemoryStore()
    async with Cluster(nodes=0, store=store) as cluster:
        (root,) = await cluster.apply(owned("root"))
        (branch,) = await cluster.apply(owned("branch", root, block=True))
        await cluster.apply(owned("leaf", branch, block=True, finalizers=("test.io/hold",)))
        await cluster.client.delete(root, propagation="Foreground")
        await cluster.run_for(seconds=2)
    async with Cluster(nodes=0, store=store) as cluster:
        await cluster.run_for(seconds=2)
        assert await config_maps(cluster) == ["branch", "leaf", "root"]
        await cluster.client.patch(
            ConfigMap, "leaf", "default", patch={"metadata": {"finalizers": None}}
        )
        await cluster.run_for(seconds=2)
        assert await config_maps(cluster) == []


async def test_what_lost_its_owner_while_nobody_looked_goes() -> None:
    store = MemoryStore()
    options = ControlPlaneOptions(controllers=False, scheduler=False)
    async with Cluster(nodes=0, store=store, options=options) as cluster:
        (owner,) = await cluster.apply(owned("owner"))
        await cluster.apply(owned("child", owner))
        await cluster.client.delete(owner, propagation="Background")
    async with Cluster(nodes=0, store=store) as cluster:
        await cluster.run_for(seconds=2)
        assert await config_maps(cluster) == []

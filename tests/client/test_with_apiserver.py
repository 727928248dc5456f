"""Client, caches, events and leases against the real API server. Nothing is fake.

The store is in memory, nobody is refused anything, and time is virtual.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pybernetes.aio.virtualtime import settled
from pybernetes.api.resource import Resource, Scope, Status
from pybernetes.api.types.coordination_v1 import Lease
from pybernetes.api.types.core_v1 import ConfigMap, Event, Namespace, Node, Pod, PodStatus
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import AlreadyExists, Conflict, Expired, NotFound
from pybernetes.apimachinery.meta import Key
from pybernetes.apiserver.server import ApiServer
from pybernetes.client import (
    NORMAL,
    Caches,
    Client,
    EventWriter,
    LeaderElector,
    PatchType,
    metadata_kind,
)
from pybernetes.storage.memory import MemoryStore
from pybernetes.wire.memory import MemoryHttpClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from pybernetes.aio.clock import Clock

RESOURCES = (
    Resource(group="", version="v1", kind=ConfigMap, plural="configmaps", scope=Scope.NAMESPACED),
    Resource(group="", version="v1", kind=Event, plural="events", scope=Scope.NAMESPACED),
    Resource(group="", version="v1", kind=Namespace, plural="namespaces", scope=Scope.CLUSTER),
    Resource(
        group="",
        version="v1",
        kind=Pod,
        plural="pods",
        scope=Scope.NAMESPACED,
        subresources=(Status(),),
        selectable_fields={"spec.nodeName": lambda pod: pod.spec.node_name},
    ),
    Resource(
        group="coordination.k8s.io",
        version="v1",
        kind=Lease,
        plural="leases",
        scope=Scope.NAMESPACED,
    ),
)


@pytest.fixture
async def server(clock: Clock, random: Random) -> AsyncIterator[ApiServer]:
    async with ApiServer(MemoryStore(), clock, random, resources=RESOURCES) as server:
        yield server


@pytest.fixture
def client(server: ApiServer) -> Client:
    return Client(MemoryHttpClient(server.handle))


@pytest.fixture
async def caches(client: Client, random: Random) -> AsyncIterator[Caches]:
    caches = Caches(client, random=random, lifetime=None)
    task = asyncio.create_task(caches.run())
    yield caches
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def config_map(name: str, namespace: str = "default", **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=namespace), data=data)


async def test_the_verbs(client: Client) -> None:
    made = await client.create(config_map("a", x="1"))
    assert made.metadata.uid
    with pytest.raises(AlreadyExists):
        await client.create(config_map("a"))
    assert await client.get(ConfigMap, "a", "default") == made
    changed = await client.update(replace(made, data={"x": "2"}))
    with pytest.raises(Conflict):
        await client.update(replace(made, data={"x": "3"}))
    patched = await client.patch(
        ConfigMap, "a", "default", patch={"data": {"y": "4"}}, type=PatchType.STRATEGIC
    )
    assert patched.data == {"x": "2", "y": "4"}
    ops = [{"op": "remove", "path": "/data/x"}]
    patched = await client.patch(ConfigMap, "a", "default", patch=ops, type=PatchType.JSON)
    assert patched.data == {"y": "4"}
    with pytest.raises(Conflict):
        await client.delete(patched, resource_version=changed.metadata.resource_version)
    await client.delete(patched)
    with pytest.raises(NotFound):
        await client.get(ConfigMap, "a", "default")
    dry = await client.create(config_map("dry"), dry_run=True)
    assert dry.metadata.name == "dry"
    assert await client.get_or_none(ConfigMap, "dry", "default") is None


async def test_lists_in_pages(client: Client) -> None:
    for n in range(5):
        await client.create(config_map(f"m{n}"))
    first = await client.list(ConfigMap, limit=3)
    rest = await client.list(ConfigMap, limit=3, continue_=first.continue_)
    names = [item.metadata.name for item in (*first.items, *rest.items)]
    assert names == ["m0", "m1", "m2", "m3", "m4"]
    assert (first.remaining, rest.continue_) == (2, "")


async def test_status_is_written_apart(client: Client) -> None:
    pod = await client.create(Pod(metadata=ObjectMeta(name="p", namespace="default")))
    wrote = await client.update_status(replace(pod, status=PodStatus(phase="Running")))
    assert wrote.status.phase == "Running"


async def test_a_watch(client: Client) -> None:
    first = await client.create(config_map("a"))
    async with client.watch(
        ConfigMap, "default", resource_version=first.metadata.resource_version
    ) as events:
        await client.create(config_map("b"))
        await client.delete(first)
        seen = [await anext(events), await anext(events)]
    assert [(event.type, event.object.metadata.name) for event in seen] == [
        ("ADDED", "b"),
        ("DELETED", "a"),
    ]


async def test_a_forgotten_revision_is_expired(server: ApiServer, client: Client) -> None:
    # More than the server keeps in memory for watches that resume.
    for n in range(12):
        await client.create(config_map(f"m{n}", text="x" * 500_000))
    await server.store.compact(server.store.revision)
    with pytest.raises(Expired):
        async with client.watch(ConfigMap, resource_version="1") as events:
            await anext(events)


async def test_caches_follow(client: Client, caches: Caches) -> None:
    await client.create(config_map("before"))
    cache = caches.of(ConfigMap)
    meta = caches.of(metadata_kind("", "v1", "configmaps", kind="ConfigMap"))
    here = caches.of(Pod, field_selector="spec.nodeName=n1")
    await caches.wait_synced()
    assert [item.metadata.name for item in cache] == ["before"]
    after = await client.create(config_map("after"))
    await client.delete(ConfigMap, "before", "default")
    pod = Pod(metadata=ObjectMeta(name="p", namespace="default"))
    await client.create(replace(pod, spec=replace(pod.spec, node_name="n1")))
    await client.create(replace(pod, metadata=ObjectMeta(name="q", namespace="default")))
    await settled()
    assert list(cache) == [after]
    assert [item.metadata.uid for item in meta] == [after.metadata.uid]
    assert [item.metadata.name for item in here] == ["p"]


async def test_the_cache_and_the_server_agree_whatever_is_written(
    server: ApiServer, client: Client, caches: Caches, random: Random
) -> None:
    cache = caches.of(ConfigMap)
    heard: dict[Key, ConfigMap] = {}

    def listen(old: ConfigMap | None, new: ConfigMap | None) -> None:
        some = new or old
        assert some is not None
        key = cache.kind.key_of(some)
        assert heard.pop(key, None) == old
        if new is not None:
            heard[key] = new

    cache.subscribe(listen)
    for n in range(300):
        name = random.choice("abcdef")
        with suppress(NotFound, AlreadyExists):
            match random.randrange(4):
                case 0:
                    await client.create(config_map(name))
                case 1:
                    await client.delete(ConfigMap, name, "default")
                case _:
                    patch = {"data": {"n": str(n)}}
                    await client.patch(ConfigMap, name, "default", patch=patch)
        if random.random() < 0.1:
            await server.store.compact(server.store.revision)
        if random.random() < 0.2:
            await asyncio.sleep(random.random() * 100)
        cache.check_invariants()
    await settled()
    truth = {cache.kind.key_of(item): item for item in (await client.list(ConfigMap)).items}
    assert {cache.kind.key_of(item): item for item in cache} == truth == heard
    assert cache.statistics().replacements == 1


async def test_events_are_written_and_counted(client: Client, clock: Clock, random: Random) -> None:
    writer = EventWriter(client, clock=clock, random=random)
    task = asyncio.create_task(writer.run())
    node = Node(metadata=ObjectMeta(name="n1", uid="u"))
    for _ in range(3):
        writer.recorder("kubelet", host="n1").record(node, NORMAL, "Ready", "node is ready")
        await asyncio.sleep(10)
    (event,) = (await client.list(Event, "default")).items
    assert (event.count, event.reporting_component) == (3, "kubelet")
    assert event.first_timestamp is not None
    assert event.last_timestamp is not None
    assert (event.last_timestamp - event.first_timestamp).total_seconds() == 20
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_one_of_several_leads(client: Client, clock: Clock, random: Random) -> None:
    leading: set[str] = set()

    async def candidate(name: str) -> None:
        async def lead() -> None:
            assert not leading
            leading.add(name)
            await asyncio.sleep(100)
            leading.clear()

        key = Key("kube-system", "thing")
        await LeaderElector(client, key, name, clock=clock, random=random).run(lead)

    async with asyncio.TaskGroup() as tasks:
        for name in "abc":
            tasks.create_task(candidate(name))
    assert 300 <= clock.monotonic() <= 330
    lease = await client.get(Lease, "thing", "kube-system")
    assert lease.spec.lease_transitions == 2

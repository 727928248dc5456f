"""The controller loop and expectations. Real: client, caches, queue. Fake: the server."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from pybernetes.aio.slowstart import slow_start
from pybernetes.aio.virtualtime import settled
from pybernetes.api.types.apps_v1 import ReplicaSet
from pybernetes.api.types.core_v1 import Node, Pod, PodSpec
from pybernetes.api.types.meta_v1 import ObjectMeta, OwnerReference
from pybernetes.apimachinery.errors import Conflict, Forbidden
from pybernetes.apimachinery.meta import Key
from pybernetes.client.cache import Cache
from pybernetes.client.caches import Caches
from pybernetes.client.controller import (
    Source,
    TerminalError,
    changes_of,
    keys_of,
    mapped,
    owner_keys_of,
    run_controller,
)
from pybernetes.client.expectations import Expectations
from pybernetes.client.kind import kind_of
from tests.client.fakeserver import FakeServer, parse_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from random import Random

KEY = Key("ns", "rs")
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def pod(
    name: str, version: int = 1, *, owner: str = "", node: str = "", going: bool = False
) -> Pod:
    owners = (
        OwnerReference(
            api_version="apps/v1", kind="ReplicaSet", name=owner, uid=owner, controller=True
        ),
    )
    metadata = ObjectMeta(
        name=name,
        namespace="ns",
        uid=f"uid-{name}",
        resource_version=str(version),
        owner_references=owners if owner else (),
        deletion_timestamp=MOMENT if going else None,
    )
    return Pod(metadata=metadata, spec=PodSpec(node_name=node))


@pytest.fixture
def pods() -> Cache[Pod]:
    return Cache(kind_of(Pod))


@asynccontextmanager
async def controller(
    reconcile: Callable[[Key], Awaitable[timedelta | None]], *sources: Source
) -> AsyncIterator[None]:
    task = asyncio.create_task(run_controller("test", reconcile, sources))
    await settled()
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Recorder:
    """A reconcile function that notes when it looked at what, and does as told."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, Key]] = []
        self.raises: list[Exception | None] = []
        self.again: list[timedelta | None] = []

    async def __call__(self, key: Key) -> timedelta | None:
        self.seen.append((asyncio.get_running_loop().time(), key))
        if self.raises and (error := self.raises.pop(0)) is not None:
            raise error
        return self.again.pop(0) if self.again else None

    @property
    def keys(self) -> list[str]:
        return [str(key) for _, key in self.seen]

    @property
    def times(self) -> list[float]:
        return [round(time, 3) for time, _ in self.seen]


async def test_nothing_is_reconciled_before_all_sources_are_filled(pods: Cache[Pod]) -> None:
    nodes: Cache[Node] = Cache(kind_of(Node))
    recorder = Recorder()
    async with controller(recorder, keys_of(pods), keys_of(nodes)):
        pods.replace([pod("a"), pod("b")])
        await settled()
        assert recorder.seen == []
        nodes.replace([Node(metadata=ObjectMeta(name="n"))])
        await settled()
        assert sorted(recorder.keys) == ["n", "ns/a", "ns/b"]
        pods.put(pod("a", 2))
        pods.remove(Key("ns", "b"))
        await settled()
        assert recorder.keys[3:] == ["ns/a", "ns/b"]


async def test_owners_old_and_new_are_looked_at(pods: Cache[Pod]) -> None:
    recorder = Recorder()
    pods.replace([pod("orphan")])
    source = owner_keys_of(pods, ReplicaSet)
    assert str(source) == "replicasets.apps owning pods"
    async with controller(recorder, source):
        pods.put(pod("a", 1, owner="x"))
        await settled()
        pods.put(pod("a", 2, owner="y"))
        await settled()
        pods.remove(Key("ns", "a"))
        await settled()
        assert recorder.keys == ["ns/x", "ns/x", "ns/y", "ns/y"]


async def test_mapped_and_compared_sources(pods: Cache[Pod]) -> None:
    recorder = Recorder()
    pods.replace([])
    by_node = mapped(pods, lambda pod: [Key("", pod.spec.node_name)] if pod.spec.node_name else [])
    moved = changes_of(
        pods, lambda old, new: [Key("", "moved")] if old and new and old.spec != new.spec else []
    )
    async with controller(recorder, by_node, moved):
        pods.put(pod("a", 1, node="n1"))
        pods.put(pod("a", 2, node="n1"))
        await settled()
        assert recorder.keys == ["n1"]
        pods.put(pod("a", 3, node="n2"))
        await settled()
        assert sorted(recorder.keys) == ["moved", "n1", "n1", "n2"]


async def test_a_success_may_ask_to_be_woken(pods: Cache[Pod]) -> None:
    recorder = Recorder()
    recorder.again = [timedelta(seconds=30), timedelta(hours=1)]
    pods.replace([pod("a")])
    async with controller(recorder, keys_of(pods)):
        await asyncio.sleep(10_000)
        assert recorder.times == [0, 30, 3630]


async def test_failures_are_tried_again_and_a_success_ends_that(
    pods: Cache[Pod], caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    recorder.raises = [
        Conflict("pods", "a"),
        Forbidden("pods", "a", "no"),
        ZeroDivisionError(),
        None,
    ]
    pods.replace([pod("a")])
    async with controller(recorder, keys_of(pods)):
        await asyncio.sleep(1000)
        assert recorder.times == [0, 0.005, 0.015, 0.035]
        assert "will retry: pods" in caplog.text
        assert "reconcile failed, will retry" in caplog.text
        recorder.raises = [OSError("away")]
        pods.put(pod("a", 2))
        await asyncio.sleep(1000)
        assert recorder.times[4:] == [1000, 1000.005]


async def test_a_terminal_error_waits_for_a_change(
    pods: Cache[Pod], caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    recorder.raises = [TerminalError("the selector selects nothing")]
    pods.replace([pod("a")])
    async with controller(recorder, keys_of(pods)):
        await asyncio.sleep(1000)
        assert len(recorder.seen) == 1
        assert "ns/a: waiting for a change: the selector selects nothing" in caplog.text
        pods.put(pod("a", 2))
        await settled()
        assert len(recorder.seen) == 2


# Expectations


async def test_creations_are_met_when_as_many_were_seen(pods: Cache[Pod]) -> None:
    expectations = Expectations()
    expectations.follow(pods, ReplicaSet)
    assert expectations.met(KEY)
    for _ in range(2):
        with expectations.creation(KEY):
            pass
    pods.put(pod("a", owner="rs"))
    pods.put(pod("stranger", owner="other"))
    pods.put(pod("a", 2, owner="rs"))
    assert not expectations.met(KEY)
    assert expectations.statistics() == {"owners": 1, "creations": 1, "deletions": 0}
    pods.put(pod("b", owner="rs"))
    assert expectations.met(KEY)
    pods.put(pod("c", owner="rs"))
    assert expectations.met(KEY)


async def test_a_write_that_failed_is_not_waited_for(pods: Cache[Pod]) -> None:
    expectations = Expectations()
    with pytest.raises(Conflict), expectations.creation(KEY):
        raise Conflict("pods", "a")
    assert expectations.met(KEY)
    with pytest.raises(Conflict), expectations.deletion(KEY, pod("a")):
        raise Conflict("pods", "a")
    assert expectations.met(KEY)


async def test_the_cache_may_be_faster_than_the_answer(pods: Cache[Pod]) -> None:
    expectations = Expectations()
    expectations.follow(pods, ReplicaSet)
    with expectations.creation(KEY):
        pods.put(pod("a", owner="rs"))
    assert expectations.met(KEY)


@pytest.mark.parametrize("way", ["terminating then gone", "gone at once", "released"])
async def test_a_deletion_counts_once(pods: Cache[Pod], way: str) -> None:
    expectations = Expectations()
    pods.replace([pod("a", owner="rs"), pod("b", owner="rs")])
    expectations.follow(pods, ReplicaSet)
    for name in "ab":
        with expectations.deletion(KEY, pod(name)):
            pass
    if way == "terminating then gone":
        pods.put(pod("a", 2, owner="rs", going=True))
    if way == "released":
        pods.put(pod("a", 2))
    pods.remove(Key("ns", "a"))
    assert not expectations.met(KEY)
    pods.remove(Key("ns", "b"))
    assert expectations.met(KEY)


async def test_after_five_minutes_they_are_taken_as_met() -> None:
    expectations = Expectations()
    with expectations.creation(KEY):
        pass
    await asyncio.sleep(100)
    wait = expectations.expires_in(KEY)
    assert wait is not None
    assert not expectations.met(KEY)
    await asyncio.sleep(wait.total_seconds())
    assert expectations.met(KEY)
    assert expectations.expires_in(KEY) is None
    with expectations.creation(KEY):
        pass
    expectations.forget(KEY)
    assert expectations.met(KEY)


async def test_a_replica_controller_never_makes_too_many(random: Random) -> None:
    """The whole loop: a late cache must not lead to more pods than were asked for."""
    server = FakeServer()
    client = server.client()
    server.create("/apis/apps/v1/replicasets", {"metadata": {"name": "rs", "namespace": "ns"}})
    caches = Caches(client, random=random, lifetime=None)
    sets, pods = caches.of(ReplicaSet), caches.of(Pod)
    expectations = Expectations()
    expectations.follow(pods, ReplicaSet)
    most = 0

    async def reconcile(key: Key) -> timedelta | None:
        owner = sets.get(key)
        if owner is None or not expectations.met(key):
            return None
        reference = OwnerReference(
            api_version="apps/v1",
            kind="ReplicaSet",
            name=owner.metadata.name,
            uid=owner.metadata.uid,
            controller=True,
        )

        async def create() -> None:
            nonlocal most
            with expectations.creation(key):
                metadata = ObjectMeta(
                    generate_name="p-", namespace=key.namespace, owner_references=(reference,)
                )
                await client.create(Pod(metadata=metadata))
            most = max(most, sum(where == "/api/v1/pods" for where, *_ in server.objects))

        await slow_start([create] * (5 - len(pods.owned_by(owner))))
        return None

    running = asyncio.create_task(caches.run())
    async with controller(reconcile, keys_of(sets), owner_keys_of(pods, ReplicaSet)):
        for _ in range(50):
            await asyncio.sleep(random.random())
            if random.random() < 0.3:
                server.cut_watches()
            mine = [key for key in server.objects if key[0] == "/api/v1/pods"]
            if mine and random.random() < 0.5:
                victim = random.choice(mine)
                server.delete(parse_path(f"/api/v1/namespaces/ns/pods/{victim[2]}"))
        await asyncio.sleep(30)
        assert len(pods) == 5
        assert most == 5
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running

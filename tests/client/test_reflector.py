"""Caches against a server that misbehaves. Real: client, caches. Fake: the server."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.aio.virtualtime import settled
from pybernetes.api.types.core_v1 import ConfigMap, Node, Pod
from pybernetes.apimachinery.errors import InternalError
from pybernetes.apimachinery.meta import Key
from pybernetes.client.caches import Caches
from pybernetes.client.kind import dynamic_kind, metadata_kind
from pybernetes.wire.http import ConnectionClosed, Request, Response
from tests.client.fakeserver import FakeServer, answer_of, bookmark, parse_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from pybernetes.client.cache import Cache

PODS = "/api/v1/pods"


def pod(name: str, namespace: str = "default", **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, "labels": labels}}


@asynccontextmanager
async def running(caches: Caches) -> AsyncIterator[Caches]:
    task = asyncio.create_task(caches.run())
    try:
        yield caches
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
async def caches(server: FakeServer, random: Random) -> AsyncIterator[Caches]:
    async with running(Caches(server.client(), random=random, lifetime=None)) as caches:
        yield caches


def contents(cache: Cache[Any]) -> dict[Key, str]:
    return {cache.kind.key_of(obj): cache.kind.metadata_of(obj).resource_version for obj in cache}


def truth(server: FakeServer, collection: str = PODS) -> dict[Key, str]:
    return {
        Key(namespace, name): obj["metadata"]["resourceVersion"]
        for (where, namespace, name), obj in server.objects.items()
        if where == collection
    }


async def test_one_watch_fills_and_follows(server: FakeServer, caches: Caches) -> None:
    server.create(PODS, pod("a"))
    cache = caches.of(Pod)
    assert caches.of(Pod) is cache
    assert not cache.synced
    await caches.wait_synced()
    assert contents(cache) == truth(server)
    server.create(PODS, pod("b", "other"))
    server.delete(parse_path("/api/v1/namespaces/default/pods/a"))
    await settled()
    assert contents(cache) == truth(server)
    assert len(server.requests) == 1
    assert caches.statistics()["pods"].objects == 1


async def test_each_selection_has_a_watch_of_its_own(server: FakeServer, caches: Caches) -> None:
    all_pods, some = caches.of(Pod), caches.of(Pod, namespace="other")
    server.create(PODS, pod("a"))
    server.create(PODS, pod("b", "other"))
    await settled()
    assert (len(all_pods), len(some)) == (2, 1)
    caches.of(Pod, field_selector="spec.nodeName=n")
    await settled()
    assert "fieldSelector=spec.nodeName%3Dn" in server.requests[-1]


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "ignores"])
async def test_servers_that_cannot_begin_a_watch_with_the_state_are_listed(
    server: FakeServer, caches: Caches, silent: bool
) -> None:
    server.watch_list, server.silent_about_watch_list = False, silent
    for n in range(1200):
        server.create(PODS, pod(f"p{n}"))
    cache = caches.of(Pod)
    await caches.wait_synced()
    assert contents(cache) == truth(server)
    assert sum("limit=500" in request for request in server.requests) == 3
    server.cut_watches()
    server.compact()
    await asyncio.sleep(60)
    server.create(PODS, pod("late"))
    await settled()
    assert contents(cache) == truth(server)
    assert sum("sendInitialEvents" in request for request in server.requests) == 1


async def test_pages_that_expire_are_asked_for_in_one_go(
    server: FakeServer, caches: Caches
) -> None:
    server.watch_list = False
    for n in range(1200):
        server.create(PODS, pod(f"p{n}"))

    def compact_between_pages(request: Request) -> None:
        if "continue=" in request.query:
            server.compact()
            server.revision += 1
            server.compacted += 1

    server.interfere = compact_between_pages
    cache = caches.of(Pod)
    await caches.wait_synced()
    assert len(cache) == 1200


async def test_a_cut_watch_goes_on_where_it_was(server: FakeServer, caches: Caches) -> None:
    cache = caches.of(Pod)
    server.create(PODS, pod("a"))
    await settled()
    server.cut_watches()
    server.create(PODS, pod("b"))
    server.delete(parse_path("/api/v1/namespaces/default/pods/a"))
    changes: list[tuple[str, str]] = []
    cache.subscribe(
        lambda old, new: changes.append(
            ("+" if old is None else "-", (new or old).metadata.name)  # type: ignore[union-attr]
        )
    )
    await settled()
    assert changes == [("+", "a"), ("+", "b"), ("-", "a")]
    assert cache.statistics().replacements == 1


async def test_bookmarks_move_the_place_to_go_on(server: FakeServer, caches: Caches) -> None:
    cache = caches.of(Pod)
    await settled()
    server.create("/api/v1/configmaps", pod("x"))
    server.compact()
    for _, _, queue in server.watches.values():
        queue.put_nowait(bookmark(server.revision))
    await settled()
    server.cut_watches()
    await asyncio.sleep(60)
    assert cache.statistics().replacements == 1
    assert server.watches


async def test_a_forgotten_past_means_a_new_beginning(server: FakeServer, caches: Caches) -> None:
    cache = caches.of(Pod)
    server.create(PODS, pod("a"))
    server.create(PODS, pod("b"))
    await settled()
    kept = cache.get(Key("default", "b"))
    changes: list[tuple[Pod | None, Pod | None]] = []
    cache.subscribe(lambda old, new: changes.append((old, new)))
    del changes[:]
    server.cut_watches()
    server.delete(parse_path("/api/v1/namespaces/default/pods/a"))
    server.create(PODS, pod("c"))
    server.compact()
    server.create("/api/v1/configmaps", pod("x"))
    server.compact()
    await asyncio.sleep(60)
    assert contents(cache) == truth(server)
    assert cache.get(Key("default", "b")) is kept
    assert [(old is None, new is None) for old, new in changes] == [(False, True), (True, False)]


async def test_failures_are_tried_again_ever_more_slowly(
    server: FakeServer, caches: Caches, caplog: pytest.LogCaptureFixture
) -> None:
    times: list[float] = []

    def fail(_: Request) -> Response:
        times.append(asyncio.get_running_loop().time())
        if len(times) % 2:
            raise ConnectionClosed("nobody there")
        return answer_of(InternalError("oh"))

    server.interfere = fail
    cache = caches.of(Pod)
    await asyncio.sleep(300)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    for number, gap in enumerate(gaps):
        least = min(0.8 * 2**number, 30)
        assert least <= gap <= 2 * least
    assert "pods: watch failed: nobody there" in caplog.text
    server.interfere = lambda _: None
    await asyncio.sleep(60)
    assert cache.synced


async def test_a_server_that_ends_every_watch_at_once_is_not_stormed(
    server: FakeServer, caches: Caches
) -> None:
    server.interfere = lambda _: Response(200, [], b"")
    caches.of(Pod)
    await asyncio.sleep(300)
    assert len(server.requests) < 25


async def test_unreadable_objects_are_as_if_absent(
    server: FakeServer, caches: Caches, caplog: pytest.LogCaptureFixture
) -> None:
    server.create(PODS, pod("bad") | {"spec": 1})
    server.create(PODS, pod("good"))
    server.create(PODS, pod("turns"))
    cache = caches.of(Pod)
    await settled()
    assert [obj.metadata.name for obj in cache] == ["good", "turns"]
    bad = server.objects[PODS, "default", "turns"] | {"spec": {"containers": {}}}
    server.update(parse_path("/api/v1/namespaces/default/pods/turns"), bad)
    await settled()
    assert [obj.metadata.name for obj in cache] == ["good"]
    assert "default/turns, which cannot be read" in caplog.text
    server.cut_watches()
    server.create(PODS, pod("more"))
    await settled()
    assert [obj.metadata.name for obj in cache] == ["good", "more"]
    assert cache.statistics().replacements == 1


async def test_watches_have_a_lifetime_and_a_dead_server_is_noticed(
    server: FakeServer, random: Random
) -> None:
    async with running(
        Caches(server.client(), random=random, lifetime=timedelta(minutes=5))
    ) as caches:
        cache = caches.of(Node)
        await settled()
        (request,) = server.requests
        seconds = int(request.rpartition("timeoutSeconds=")[2])
        assert 300 <= seconds <= 600
        # Nothing comes any more, not even the promised end.
        await asyncio.sleep(seconds + 29)
        assert len(server.requests) == 1
        await asyncio.sleep(5)
        assert len(server.requests) == 2
        assert "resourceVersion=100" in server.requests[1]
        assert cache.statistics().replacements == 1


async def test_caches_may_be_asked_for_before_and_dropped_after(
    server: FakeServer, random: Random
) -> None:
    caches = Caches(server.client(), random=random)
    early = caches.of(ConfigMap)
    async with running(caches):
        await early.wait_synced()
        with pytest.raises(RuntimeError):
            await caches.run()
        await caches.drop(early)
        assert server.watches == {}
        assert caches.of(ConfigMap) is not early
        await caches.wait_synced()
    assert server.watches == {}


async def test_dictionaries_and_metadata_are_cached_the_same_way(
    server: FakeServer, caches: Caches
) -> None:
    widgets = dynamic_kind("example.com", "v1", "widgets", kind="Widget")
    partial = metadata_kind("example.com", "v1", "widgets", kind="Widget")
    whole, part = caches.of(widgets), caches.of(partial)
    assert whole is not part  # type: ignore[comparison-overlap]  # that is the point
    server.create("/apis/example.com/v1/widgets", pod("w", app="x") | {"spec": {"size": 1}})
    await settled()
    assert [obj["spec"] for obj in whole.list("default")] == [{"size": 1}]
    assert [obj.metadata.labels for obj in part] == [{"app": "x"}]


@pytest.mark.parametrize("watch_list", [True, False])
@pytest.mark.parametrize("round_", range(8))
async def test_whatever_happens_the_cache_converges_and_listeners_know_all(
    random: Random, watch_list: bool, round_: int
) -> None:
    """Random writes, cut watches, forgotten history, refusals: a consistent history for all."""
    server = FakeServer(watch_list=watch_list, page_limit=3)
    trouble = 0.0

    def interfere(_: Request) -> Response | None:
        if random.random() < trouble:
            return answer_of(InternalError("trouble"))
        return None

    server.interfere = interfere
    heard: dict[Key, Pod] = {}

    def listen(old: Pod | None, new: Pod | None) -> None:
        some = new or old
        assert some is not None
        key = Key(some.metadata.namespace, some.metadata.name)
        assert heard.get(key) is old, "a change was lost or told twice"
        if new is None:
            del heard[key]
            return
        if old is not None:
            assert old.metadata.uid == new.metadata.uid
            assert int(old.metadata.resource_version) < int(new.metadata.resource_version)
        heard[key] = new

    async with running(Caches(server.client(), random=random, lifetime=None)) as caches:
        cache = caches.of(Pod)
        cache.list("x")  # makes the index
        cache.subscribe(listen)
        for _ in range(400):
            trouble = random.choice((0.0, 0.0, 0.5))
            disturb(server, random)
            if random.random() < 0.3:
                await asyncio.sleep(random.choice((0, 0, 0.1, 5)))
            cache.check_invariants()
        trouble = 0.0
        await asyncio.sleep(120)
        assert contents(cache) == truth(server)
        assert heard == {Key(p.metadata.namespace, p.metadata.name): p for p in cache}


def disturb(server: FakeServer, random: Random) -> None:
    namespace, name = random.choice("xy"), random.choice("abcdefgh")
    address = parse_path(f"/api/v1/namespaces/{namespace}/pods/{name}")
    what = random.random()
    if what < 0.05:
        server.cut_watches()
    elif what < 0.08:
        server.compact()
    elif what < 0.1:
        server.compact()
        server.cut_watches()
    elif address.key not in server.objects:
        server.create(PODS, pod(name, namespace))
    elif what < 0.4:
        server.delete(address)
    else:
        server.update(address, dict(server.objects[address.key]))

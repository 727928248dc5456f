"""Kinds of several versions share what is stored; kinds may come while the server runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pybernetes.api.resource import Conversion, Resource, Scope, Strategy
from pybernetes.api.types import core_v1, events_v1
from pybernetes.apiserver import ApiServer
from pybernetes.apiserver.catalog import Served, make_cache
from tests.api.server.conftest import METADATA_LIST, RESOURCES, Api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.storage import MemoryStore


def to_stored(event: events_v1.Event) -> core_v1.Event:
    return core_v1.Event(
        metadata=event.metadata,
        involved_object=event.regarding or core_v1.ObjectReference(),
        reason=event.reason,
        message=event.note,
    )


def from_stored(event: core_v1.Event) -> events_v1.Event:
    return events_v1.Event(
        metadata=event.metadata,
        regarding=event.involved_object,
        reason=event.reason,
        note=event.message,
    )


EVENTS = (
    Resource(
        group="events.k8s.io",
        version="v1",
        kind=events_v1.Event,
        plural="events",
        scope=Scope.NAMESPACED,
        strategy=Strategy(generation_follows=()),
        selectable_fields={"reason": lambda event: event.reason},
        conversion=Conversion(core_v1.Event, to_stored, from_stored),
        relaxed=True,
    ),
    Resource(
        group="",
        version="v1",
        kind=core_v1.Event,
        plural="events",
        scope=Scope.NAMESPACED,
        strategy=Strategy(generation_follows=()),
        selectable_fields={"involvedObject.name": lambda event: event.involved_object.name},
        relaxed=True,
    ),
)

OLD = "/api/v1/namespaces/default/events"
NEW = "/apis/events.k8s.io/v1/namespaces/default/events"


@pytest.fixture
async def api(store: MemoryStore, clock: Clock, random: Random) -> AsyncIterator[Api]:
    async with ApiServer(store, clock, random, resources=EVENTS) as server:
        api = Api(server)
        yield api
        await api.close()


async def test_what_is_written_in_one_version_is_read_in_the_other(api: Api) -> None:
    old = await api.watch(OLD)
    new = await api.watch(NEW)
    body = {"metadata": {"name": "e"}, "regarding": {"name": "web"}, "reason": "R", "note": "hello"}
    created = await api.post(NEW, body)
    assert created.status == 201, created.body
    assert created.json["apiVersion"] == "events.k8s.io/v1"
    assert created.json["note"] == "hello"
    stored = (await api.get(f"{OLD}/e")).json
    assert (stored["apiVersion"], stored["message"]) == ("v1", "hello")
    assert stored["involvedObject"] == {"name": "web"}
    assert stored["metadata"] == created.json["metadata"]
    assert (await old.next())["object"] == stored
    assert (await new.next())["object"] == created.json
    patched = await api.patch(f"{OLD}/e", {"message": "bye"})
    assert patched.status == 200
    assert (await api.get(f"{NEW}/e")).json["note"] == "bye"
    listed = (await api.get(NEW)).json
    assert listed["apiVersion"] == "events.k8s.io/v1"
    assert listed["items"][0]["note"] == "bye"
    assert "kind" not in listed["items"][0]
    assert (await api.get(NEW, accept=METADATA_LIST)).names == ["e"]


async def test_each_version_selects_by_its_own_fields(api: Api) -> None:
    await api.post(
        OLD, {"metadata": {"name": "e"}, "involvedObject": {"name": "web"}, "reason": "R"}
    )
    assert (await api.get(f"{OLD}?fieldSelector=involvedObject.name=web")).names == ["e"]
    assert (await api.get(f"{NEW}?fieldSelector=reason=R")).names == ["e"]
    assert (await api.get(f"{OLD}?fieldSelector=reason=R")).status == 400


async def test_a_kind_that_comes_later(api: Api, store: MemoryStore, clock: Clock) -> None:
    server = api.server
    path = "/api/v1/namespaces/default/configmaps"
    assert (await api.get(path)).status == 404
    await store.put(
        "/registry/configmaps/default/old",
        b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"old","namespace":"default"}}',
    )
    entry = next(entry for entry in RESOURCES if entry.plural == "configmaps")
    cache = make_cache(entry.storage_prefix, [entry])
    await server.feed.add(entry.storage_prefix, cache)
    server.catalog.add(Served(entry, cache, clock))
    assert (await api.get(path)).names == ["old"]
    stream = await api.watch(path)
    assert await stream.types_and_names(1) == [("ADDED", "old")]
    await api.config_map("new")
    assert await stream.types_and_names(1) == [("ADDED", "new")]
    served = server.catalog.find("", "v1", "configmaps")
    assert served is not None
    server.catalog.remove(served)
    server.feed.remove(entry.storage_prefix)
    assert await stream.next() is None
    assert (await api.get(path)).status == 404

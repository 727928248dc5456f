"""WATCH: Ordered, Unique, Reliable, Resumable or 410, Bookmarkable. See conftest.py."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pybernetes.apiserver import watch as watch_module
from tests.api.server.conftest import CONFIG_MAPS, METADATA, PODS, TABLE

if TYPE_CHECKING:
    from pybernetes.storage import MemoryStore
    from tests.api.server.conftest import Api


async def revision(api: Api) -> str:
    version: str = (await api.get(CONFIG_MAPS)).json["metadata"]["resourceVersion"]
    return version


async def test_a_watch_begins_with_what_is_there(api: Api) -> None:
    await api.config_map("a")
    await api.config_map("b")
    for query in ("", "?resourceVersion=0"):
        stream = await api.watch(f"{CONFIG_MAPS}{query}")
        assert await stream.types_and_names(2) == [("ADDED", "a"), ("ADDED", "b")]
    await api.config_map("c")
    assert await stream.types_and_names(1) == [("ADDED", "c")]


async def test_a_watch_goes_on_from_a_revision(api: Api) -> None:
    await api.config_map("before")
    since = await revision(api)
    await api.config_map("a")
    stream = await api.watch(f"{CONFIG_MAPS}?resourceVersion={since}")
    patched = await api.patch(f"{CONFIG_MAPS}/a", {"data": {"k": "2"}})
    await api.delete(f"{CONFIG_MAPS}/a")
    assert await stream.types_and_names(1) == [("ADDED", "a")]
    changed = await stream.next()
    assert changed["type"] == "MODIFIED"
    assert changed["object"] == patched.json
    gone = await stream.next()
    assert gone["type"] == "DELETED"
    assert gone["object"]["data"] == {"k": "2"}
    # The last state, under the revision of the deletion.
    assert int(gone["object"]["metadata"]["resourceVersion"]) > int(
        changed["object"]["metadata"]["resourceVersion"]
    )


async def test_only_the_namespace_that_was_asked_for(api: Api) -> None:
    one = await api.watch("/api/v1/namespaces/one/configmaps")
    everywhere = await api.watch("/api/v1/configmaps")
    await api.config_map("x", "one-more")
    await api.config_map("y", "one")
    assert await one.types_and_names(1) == [("ADDED", "y")]
    assert await everywhere.types_and_names(2) == [("ADDED", "x"), ("ADDED", "y")]


async def test_objects_come_and_go_through_a_selector(api: Api) -> None:
    await api.config_map("a", color="red")
    stream = await api.watch(f"{CONFIG_MAPS}?labelSelector=color=red")
    assert await stream.types_and_names(1) == [("ADDED", "a")]
    await api.config_map("b", color="blue")
    left = await api.patch(f"{CONFIG_MAPS}/a", {"metadata": {"labels": {"color": "blue"}}})
    event = await stream.next()
    assert event["type"] == "DELETED"
    # What it was when it still matched, under the revision of the change.
    assert event["object"]["metadata"]["labels"] == {"color": "red"}
    version = left.json["metadata"]["resourceVersion"]
    assert event["object"]["metadata"]["resourceVersion"] == version
    await api.patch(f"{CONFIG_MAPS}/b", {"metadata": {"labels": {"color": "red"}}})
    await api.patch(f"{CONFIG_MAPS}/b", {"data": {"k": "2"}})
    await api.delete(f"{CONFIG_MAPS}/a")
    await api.delete(f"{CONFIG_MAPS}/b")
    assert await stream.types_and_names(3) == [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "b")]


async def test_the_pods_of_a_node(api: Api) -> None:
    await api.pod("a", node="n1")
    stream = await api.watch("/api/v1/pods?fieldSelector=spec.nodeName=n1")
    other = await api.watch("/api/v1/pods?fieldSelector=spec.nodeName=n2")
    await api.pod("b")
    await api.post(f"{PODS}/b/binding", {"target": {"name": "n1"}})
    await api.pod("c", node="n2")
    assert await stream.types_and_names(2) == [("ADDED", "a"), ("ADDED", "b")]
    assert await other.types_and_names(1) == [("ADDED", "c")]


async def test_one_object(api: Api) -> None:
    by_selector = await api.watch(f"{CONFIG_MAPS}?fieldSelector=metadata.name=b")
    by_prefix = await api.watch("/api/v1/watch/namespaces/default/configmaps/b")
    await api.config_map("a")
    await api.config_map("b", "other")
    await api.config_map("b")
    for stream in (by_selector, by_prefix):
        event = await stream.next()
        assert event["object"]["metadata"]["namespace"] == "default"
        assert event["object"]["metadata"]["name"] == "b"


async def test_watchers_of_the_same_get_the_same_bytes(api: Api) -> None:
    streams = [await api.watch(CONFIG_MAPS) for _ in range(3)]
    await api.config_map("a")
    chunks = [await anext(aiter(stream.response)) for stream in streams]
    assert chunks[0] == chunks[1] == chunks[2]
    # Encoded once: they are the same object.
    assert chunks[0] is chunks[1]


async def test_initial_events_end_with_a_bookmark(api: Api) -> None:
    await api.config_map("a")
    query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    stream = await api.watch(f"{CONFIG_MAPS}?{query}&resourceVersion=")
    assert await stream.types_and_names(1) == [("ADDED", "a")]
    mark = await stream.next()
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["kind"] == "ConfigMap"
    assert mark["object"]["metadata"] == {
        "resourceVersion": await revision(api),
        "annotations": {"k8s.io/initial-events-end": "true"},
    }
    await api.config_map("b")
    assert await stream.types_and_names(1) == [("ADDED", "b")]


async def test_initial_events_of_nothing_end_too(api: Api) -> None:
    query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    stream = await api.watch(f"{CONFIG_MAPS}?{query}")
    assert (await stream.next())["object"]["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        (
            "sendInitialEvents=true",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (
            "resourceVersionMatch=NotOlderThan",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
    ],
)
async def test_options_that_make_no_sense(api: Api, query: str, problem: str) -> None:
    answer = await api.get(f"{CONFIG_MAPS}?watch=1&{query}")
    assert answer.status == 422
    assert problem in answer.message


async def test_bookmarks_tell_how_far_a_quiet_watch_has_come(api: Api) -> None:
    stream = await api.watch(f"{CONFIG_MAPS}?allowWatchBookmarks=true&resourceVersion=0")
    silent = await api.watch(f"{CONFIG_MAPS}?resourceVersion=0&timeoutSeconds=300")
    started = asyncio.get_running_loop().time()
    await api.pod("elsewhere")
    mark = await stream.next()
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["metadata"]["resourceVersion"] == await revision(api)
    assert asyncio.get_running_loop().time() - started == 60
    # Who did not ask for bookmarks hears nothing until the end.
    assert await silent.next() is None


async def test_a_bookmark_comes_before_the_end(api: Api) -> None:
    stream = await api.watch(f"{CONFIG_MAPS}?allowWatchBookmarks=true&timeoutSeconds=10")
    await api.pod("elsewhere")
    started = asyncio.get_running_loop().time()
    assert (await stream.next())["type"] == "BOOKMARK"
    assert asyncio.get_running_loop().time() - started == 8
    assert await stream.next() is None
    assert asyncio.get_running_loop().time() - started == 10


async def test_a_watch_without_a_timeout_ends_after_half_an_hour_to_an_hour(api: Api) -> None:
    started = asyncio.get_running_loop().time()
    stream = await api.watch(CONFIG_MAPS)
    assert await stream.next() is None
    assert 1800 <= asyncio.get_running_loop().time() - started <= 3600


async def test_older_revisions_are_read_from_the_store(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pybernetes.apiserver.watchcache.WINDOW_EVENTS", 3)
    await api.config_map("first", color="red")
    since = await revision(api)
    await api.patch(f"{CONFIG_MAPS}/first", {"metadata": {"labels": {"color": "blue"}}})
    for number in range(10):
        await api.config_map(f"c{number}", color="red")
    assert api.server.catalog.caches["configmaps"].window_start > int(since)
    stream = await api.watch(f"{CONFIG_MAPS}?resourceVersion={since}")
    assert await stream.types_and_names(11) == [
        ("MODIFIED", "first"),
        *[("ADDED", f"c{number}") for number in range(10)],
    ]
    await api.config_map("last", color="red")
    assert await stream.types_and_names(1) == [("ADDED", "last")]
    selected = await api.watch(f"{CONFIG_MAPS}?resourceVersion={since}&labelSelector=color=red")
    assert (await selected.types_and_names(2)) == [("DELETED", "first"), ("ADDED", "c0")]


async def test_forgotten_revisions_are_410(api: Api, store: MemoryStore) -> None:
    await api.config_map("a")
    since = await revision(api)
    await api.config_map("b")
    await store.compact(store.revision)
    api.server.catalog.caches["configmaps"].window.clear()
    api.server.catalog.caches["configmaps"].window_start = store.revision
    stream = await api.watch(f"{CONFIG_MAPS}?resourceVersion={since}")
    event = await stream.next()
    assert event["type"] == "ERROR"
    status = event["object"]
    assert (status["code"], status["reason"]) == (410, "Expired")
    assert status["message"].startswith(f"too old resource version: {since} (")
    assert await stream.next() is None


async def test_who_does_not_read_is_cut_off(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "PENDING_LIMIT", 5)
    slow = await api.watch(CONFIG_MAPS)
    quick = await api.watch(CONFIG_MAPS)
    for number in range(7):
        await api.config_map(f"c{number}")
        assert await quick.types_and_names(1) == [("ADDED", f"c{number}")]
    assert await slow.next() is None


async def test_closing_leaves_nothing_behind(api: Api) -> None:
    stream = await api.watch(CONFIG_MAPS)
    dispatcher = api.server.catalog.caches["configmaps"].dispatcher
    assert dispatcher.watchers == 1
    await stream.response.close()
    assert dispatcher.watchers == 0
    assert not dispatcher._groups


async def test_the_end_of_the_server_ends_watches(api: Api) -> None:
    stream = await api.watch(CONFIG_MAPS)
    api.server.feed.stop()
    assert await stream.next() is None


async def test_tables_show_their_columns_once(api: Api) -> None:
    await api.pod("a")
    stream = await api.watch(PODS, accept=TABLE)
    late = await api.watch(f"{PODS}?resourceVersion={await revision(api)}", accept=TABLE)
    await api.pod("b")
    first, second, later = await stream.next(), await stream.next(), await late.next()
    assert first["object"]["kind"] == "Table"
    assert [column["name"] for column in first["object"]["columnDefinitions"]] == [
        "Name",
        "Status",
        "Age",
    ]
    assert first["object"]["rows"][0]["cells"][0] == "a"
    assert second["object"]["columnDefinitions"] is None
    assert second["object"]["rows"][0]["cells"][0] == "b"
    assert later["object"]["columnDefinitions"]


async def test_metadata_alone(api: Api) -> None:
    stream = await api.watch(CONFIG_MAPS, accept=METADATA)
    created = await api.config_map("a")
    event = await stream.next()
    assert event["object"] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": created["metadata"],
    }


async def test_every_change_reaches_every_watcher_once_and_in_order(api: Api) -> None:
    streams = [await api.watch(f"{CONFIG_MAPS}?resourceVersion=0") for _ in range(5)]

    async def write(name: str) -> None:
        await api.config_map(name)
        for number in range(10):
            await api.patch(f"{CONFIG_MAPS}/{name}", {"data": {"k": str(number)}})
        await api.delete(f"{CONFIG_MAPS}/{name}")

    async with asyncio.TaskGroup() as tasks:
        for name in ("a", "b", "c"):
            tasks.create_task(write(name))
    seen = []
    for stream in streams:
        events = [await stream.next() for _ in range(36)]
        versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
        assert versions == sorted(set(versions))
        seen.append(versions)
    assert all(versions == seen[0] for versions in seen)

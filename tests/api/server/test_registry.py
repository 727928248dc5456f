"""Every entry of the registry is served in every form. Real: all of it but the socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pybernetes.api.registry import RESOURCES
from pybernetes.apiserver import ApiServer
from tests.api.server.conftest import METADATA_LIST, TABLE, Api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random
    from typing import Any

    from pybernetes.aio.clock import Clock
    from pybernetes.api.resource import Resource
    from pybernetes.storage import MemoryStore

# What is behind a gate is not served by default.
STORED = [entry for entry in RESOURCES if entry.storage_prefix and not entry.feature_gate]


@pytest.fixture
async def api(store: MemoryStore, clock: Clock, random: Random) -> AsyncIterator[Api]:
    async with ApiServer(store, clock, random) as server:
        api = Api(server)
        yield api
        await api.close()


def place(entry: Resource[Any]) -> str:
    return f"{entry.group or 'core'}/{entry.version}/{entry.plural}"


@pytest.mark.parametrize("entry", STORED, ids=place)
async def test_every_resource_is_listed_and_watched(api: Api, entry: Resource[Any]) -> None:
    root = f"/apis/{entry.group}" if entry.group else "/api"
    path = f"{root}/{entry.version}/{entry.plural}"
    plain = (await api.get(path)).json
    assert (plain["kind"], plain["items"]) == (f"{entry.kind_name}List", [])
    table = (await api.get(path, accept=TABLE)).json
    names = [column["name"] for column in table["columnDefinitions"]]
    assert len(names) >= 2
    assert len(names) == len(set(names))
    assert (await api.get(path, accept=METADATA_LIST)).json["items"] == []
    for field in entry.selectable_fields:
        assert (await api.get(f"{path}?fieldSelector={field}=x")).status == 200
    query = "timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    stream = await api.watch(f"{path}?{query}&allowWatchBookmarks=1")
    assert (await stream.next())["type"] == "BOOKMARK"


def test_versions_that_share_a_place_say_how_they_convert() -> None:
    stored: dict[str, str] = {}
    # What is stored may be a version that is not served.
    for entry in RESOURCES:
        if entry.storage_prefix and entry.conversion is None:
            assert entry.storage_prefix not in stored, f"two stored versions of {place(entry)}"
            stored[entry.storage_prefix] = place(entry)
    assert {entry.storage_prefix for entry in STORED} <= set(stored)

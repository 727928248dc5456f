"""The API server over the store on disk: races between writes that are not visible yet, and
a restart. Real: SQLite, its thread, the clock. See conftest.py for the rest.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

import pytest

from pybernetes.aio.clock import SystemClock
from pybernetes.apiserver import ApiServer
from pybernetes.storage.sqlite import SqliteStore
from tests.api.server.conftest import CONFIG_MAPS, PODS, RESOURCES, Api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

pytestmark = pytest.mark.realtime


def running(path: Path) -> AbstractAsyncContextManager[Api]:
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def run() -> AsyncIterator[Api]:
        clock = SystemClock()
        async with (
            await SqliteStore.open(path, clock=clock) as store,
            ApiServer(store, clock, Random(1), resources=RESOURCES) as server,
        ):
            api = Api(server)
            yield api
            await api.close()

    return run()


async def test_patches_at_the_same_time_are_tried_again(tmp_path: Path) -> None:
    async with running(tmp_path / "store") as api:
        await api.config_map("a")

        async def patch(number: int) -> int:
            return (await api.patch(f"{CONFIG_MAPS}/a", {"data": {f"k{number}": "x"}})).status

        statuses = await asyncio.gather(*(patch(number) for number in range(40)))
        assert set(statuses) == {200}
        assert len((await api.get(f"{CONFIG_MAPS}/a")).json["data"]) == 41


async def test_of_many_creations_one_wins(tmp_path: Path) -> None:
    async with running(tmp_path / "store") as api:
        body = {"metadata": {"name": "a"}}
        answers = await asyncio.gather(*(api.post(CONFIG_MAPS, body) for _ in range(10)))
        assert sorted(answer.status for answer in answers) == [201] + [409] * 9


async def test_a_deletion_that_is_not_visible_yet(tmp_path: Path) -> None:
    async with running(tmp_path / "store") as api:
        await api.config_map("a")
        answers = await asyncio.gather(
            *(api.delete(f"{CONFIG_MAPS}/a") for _ in range(5)),
            api.patch(f"{CONFIG_MAPS}/a", {"data": {"late": "x"}}),
        )
        assert sorted(answer.status for answer in answers) == [200, 404, 404, 404, 404, 404]


async def test_bindings_of_many_pods_at_once(tmp_path: Path) -> None:
    async with running(tmp_path / "store") as api:
        for number in range(20):
            await api.pod(f"p{number}")
        answers = await asyncio.gather(
            *(
                api.post(f"{PODS}/p{number}/binding", {"target": {"name": "n"}})
                for number in range(20)
            )
        )
        assert {answer.status for answer in answers} == {201}
        assert len((await api.get(f"{PODS}?fieldSelector=spec.nodeName=n")).names) == 20


async def test_watches_resume_over_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "store") as api:
        created = await api.config_map("a")
        await api.config_map("b")
        await api.delete(f"{CONFIG_MAPS}/a")
    since = created["metadata"]["resourceVersion"]
    async with running(tmp_path / "store") as api:
        assert (await api.get(CONFIG_MAPS)).names == ["b"]
        stream = await api.watch(f"{CONFIG_MAPS}?resourceVersion={since}")
        assert await stream.types_and_names(2) == [("ADDED", "b"), ("DELETED", "a")]
        await api.config_map("c")
        assert await stream.types_and_names(1) == [("ADDED", "c")]

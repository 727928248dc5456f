"""The SQLite store keeps the contract, on a real disk and the real clock. Nothing is fake."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.storage import (
    Compacted,
    Durability,
    DurableOptions,
    HistoryLimits,
    KeyValue,
    SqliteStore,
    Store,
)
from pybernetes.testing.store_contract import DurableStoreContract

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path


@pytest.mark.realtime
class TestSqliteStore(DurableStoreContract):
    def run_async(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run(coroutine)

    async def open_store(self, directory: Path) -> Store:
        return await SqliteStore.open(directory / "state.db")


class ForgetfulStore(SqliteStore):
    """Nothing of its past stays in memory, and nothing is coalesced, so the disk tells all."""

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        if_revision: int | None = None,
        durability: Durability = Durability.DURABLE,
    ) -> KeyValue:
        return await super().put(key, value, if_revision=if_revision)

    async def delete(
        self,
        key: str,
        *,
        if_revision: int | None = None,
        durability: Durability = Durability.DURABLE,
    ) -> KeyValue:
        return await super().delete(key, if_revision=if_revision)


@pytest.mark.realtime
class TestHistoryOnDisk(TestSqliteStore):
    """The same contract, when whatever is not the present has to be read from the disk."""

    async def open_store(self, directory: Path) -> Store:
        options = DurableOptions(window=HistoryLimits(age=timedelta(0), size_bytes=0))
        return await ForgetfulStore.open(directory / "state.db", options=options)

    async def test_a_follower_is_told_what_it_missed(self, store: Store) -> None:
        """Not here: a follower has to be told at once, and the disk is never at once."""
        first = await store.put("/a", b"1")
        await store.put("/a", b"2")
        with pytest.raises(Compacted):
            store.follow("/", lambda changes: None, since=first.revision)

"""The store in memory: the contract, and what only it can do. Nothing is fake; time is virtual."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pybernetes.storage import Compacted, HistoryLimits, MemoryStore, Store
from pybernetes.testing.store_contract import StoreContract

if TYPE_CHECKING:
    from pathlib import Path

    from pybernetes.aio.clock import Clock
    from pybernetes.storage import Change


class TestMemoryStore(StoreContract):
    async def open_store(self, directory: Path) -> Store:
        return MemoryStore()


async def test_a_fork_and_its_original_go_their_own_ways() -> None:
    original = MemoryStore()
    base = await original.put("/a", b"1")
    fork = original.fork()
    heard: list[Change] = []
    original.follow("/", heard.extend, since=base.revision)
    mine = await fork.put("/a", b"2", if_revision=base.revision)
    theirs = await original.put("/a", b"3", if_revision=base.revision)
    await fork.delete("/a")
    assert mine.revision == theirs.revision
    assert await fork.get("/a") is None
    assert await original.get("/a") == theirs
    assert await fork.get("/a", revision=base.revision) == base
    assert [change.value for change in heard] == [b"3"]
    original.check_invariants()
    fork.check_invariants()


async def test_history_is_bounded_by_size() -> None:
    store = MemoryStore(history=HistoryLimits(size_bytes=100_000))
    for _ in range(100):
        await store.put("/a", bytes(10_000))
        assert store.statistics().window_bytes <= 110_500
    with pytest.raises(Compacted):
        await store.get("/a", revision=50)
    assert await store.get("/a", revision=store.revision - 5) is not None
    store.check_invariants()


async def test_history_is_bounded_by_age(clock: Clock) -> None:
    store = MemoryStore(clock=clock, history=HistoryLimits(age=timedelta(hours=1)))
    for _ in range(20):
        await store.put("/a", b"")
        await asyncio.sleep(600)
    assert await store.get("/a", revision=store.revision - 4) is not None
    with pytest.raises(Compacted):
        await store.get("/a", revision=store.revision - 7)

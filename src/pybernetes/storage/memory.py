"""The store in memory: for tests, simulations and throw-away clusters.

Everything is in the ledger, so a write is visible and acknowledged at once and
there is no difference between the durabilities. `fork` makes an independent copy
in milliseconds that shares every value with the original: prepare a cluster
once, then start every test from a copy of it.

Rule: no method gives up control between deciding a write and applying it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pybernetes.aio.clock import Clock, SystemClock
from pybernetes.storage.ledger import HistoryLimits, Ledger, Write, decide, result_of
from pybernetes.storage.store import (
    Change,
    Durability,
    KeyValue,
    Problem,
    Range,
    Statistics,
    StoreClosed,
    Subscription,
)
from pybernetes.storage.watch import Watch, no_older_history

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType


# The past is in memory too, so there is less of it than on a disk.
HISTORY = HistoryLimits(size_bytes=64 * 1024 * 1024)


class MemoryStore:
    """A `Store` whose only copy is in memory."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        history: HistoryLimits | None = None,
    ) -> None:
        self._clock = clock if clock is not None else SystemClock()
        self._limits = history if history is not None else HISTORY
        self._ledger = Ledger()
        self._closed = False

    @property
    def revision(self) -> int:
        return self._ledger.revision

    async def get(self, key: str, *, revision: int | None = None) -> KeyValue | None:
        self._check_open()
        if revision is None:
            return self._ledger.current(key)
        self._ledger.check_readable(revision)
        return self._ledger.get_at(key, revision)

    async def range(
        self, prefix: str, *, after: str = "", limit: int = 0, revision: int | None = None
    ) -> Range:
        self._check_open()
        if revision is None:
            revision = self._ledger.revision
        self._ledger.check_readable(revision)
        return self._ledger.range_at(prefix, after=after, limit=limit, revision=revision)

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        if_revision: int | None = None,
        durability: Durability = Durability.DURABLE,
    ) -> KeyValue:
        return self._write(Write(key, value, if_revision))

    async def delete(
        self,
        key: str,
        *,
        if_revision: int | None = None,
        durability: Durability = Durability.DURABLE,
    ) -> KeyValue:
        return self._write(Write(key, None, if_revision))

    def watch(
        self, prefix: str, *, since: int
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Change]]]:
        return Watch(
            self._ledger,
            prefix,
            since,
            read_older=no_older_history,
            is_closed=lambda: self._closed,
        )

    def follow(
        self, prefix: str, callback: Callable[[Sequence[Change]], None], *, since: int
    ) -> Subscription:
        self._check_open()
        return self._ledger.follow(prefix, callback, since=since)

    async def compact(self, revision: int) -> None:
        self._check_open()
        self._ledger.compact(revision)

    def problems(self) -> Sequence[Problem]:
        return ()

    def statistics(self) -> Statistics:
        ledger = self._ledger
        return Statistics(
            keys=len(ledger),
            revision=ledger.revision,
            compacted=ledger.compacted,
            live_bytes=ledger.live_bytes,
            window_bytes=ledger.window_bytes,
        )

    async def close(self) -> None:
        self._closed = True
        self._ledger.wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def fork(self) -> MemoryStore:
        """An independent store that begins where this one is now, without its watchers."""
        self._check_open()
        copy = MemoryStore(clock=self._clock, history=self._limits)
        copy._ledger = self._ledger.fork()
        return copy

    def check_invariants(self) -> None:
        """Raise AssertionError if the store contradicts itself."""
        self._ledger.check_invariants()
        assert self._ledger.compacted == self._ledger.window_start

    def _write(self, write: Write) -> KeyValue:
        self._check_open()
        ledger = self._ledger
        entry = decide(write, ledger.current(write.key), ledger.revision + 1, self._clock.now())
        ledger.apply((entry,))
        excess = ledger.excess(self._limits, entry.at)
        if excess:
            ledger.compact(excess)
        return result_of(entry)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed("the store is closed")

"""A watch: a position in the history that moves when its reader asks.

There is no queue between the store and a watcher. A watch remembers the revision
up to which its reader has seen everything; asked for more, it reads on from
there, out of the ledger's window or, if that has moved on, out of the older
history of the backend. A reader that sleeps costs nothing but the history it
would need, and that is bounded: overtaken by compaction, it is told `Compacted`.

Rule: `_seen` only grows, and every change at or below it has been delivered, or
does not concern this watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from pybernetes.storage.store import Change, StoreClosed

if TYPE_CHECKING:
    from types import TracebackType

    from pybernetes.storage.ledger import Ledger

# No batch is longer than this, so that a reader far behind gets its turn to breathe.
BATCH_CHANGES = 1000

# Reads changes below a prefix after a revision from older history: the changes, and the
# revision up to which they are complete (greater than the one asked for).
ReadOlder = Callable[[str, int], Awaitable[tuple[list[Change], int]]]


async def no_older_history(prefix: str, since: int) -> tuple[list[Change], int]:
    """For backends whose whole history is in the ledger's window."""
    raise AssertionError(f"the history of {prefix} after {since} is neither kept nor compacted")


class Watch:
    """The async iterator and context manager that `Store.watch` returns."""

    def __init__(
        self,
        ledger: Ledger,
        prefix: str,
        since: int,
        *,
        read_older: ReadOlder,
        is_closed: Callable[[], bool],
    ) -> None:
        self._ledger = ledger
        self._prefix = prefix
        self._seen = since
        self._read_older = read_older
        self._is_closed = is_closed
        # Set while the reader waits for something to happen.
        self._waiting: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Watch:
        if self._is_closed():
            raise StoreClosed("the store is closed")
        self._ledger.check_resumable(self._seen)
        self._ledger.add_waker(self, self._wake)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ledger.remove_waker(self)

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Sequence[Change]:
        while True:
            if self._is_closed():
                raise StoreClosed("the store was closed")
            self._ledger.check_kept(self._seen)
            changes = await self._read()
            if changes:
                return changes
            if self._seen >= self._ledger.revision:
                await self._wait()

    async def _read(self) -> Sequence[Change]:
        if self._seen < self._ledger.window_start:
            changes, seen = await self._read_older(self._prefix, self._seen)
            # What was read may have been trimmed meanwhile, and then it has holes.
            self._ledger.check_kept(self._seen)
        else:
            changes, seen = self._ledger.changes_since(self._prefix, self._seen, BATCH_CHANGES)
        self._seen = seen
        return changes

    async def _wait(self) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _wake(self) -> None:
        waiting = self._waiting
        if waiting is None or waiting.done():
            return
        # A reader that has seen everything is moved along past what is not for it; else
        # a watch of a quiet prefix would fall out of the history while it sleeps.
        if not self._is_closed() and self._seen >= self._ledger.window_start:
            changes, seen = self._ledger.changes_since(self._prefix, self._seen, 1)
            if not changes:
                self._seen = seen
                return
        waiting.set_result(None)

"""Broadcast: one writer, many readers, and nobody waits for the slow one.

Each reader has a bounded queue of its own. A reader that falls further behind
than its limit loses its place: it reads what it had, then gets `Lagged`, and
must start over from wherever the truth is kept. Publishing never waits and
never fails.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Iterator

T = TypeVar("T")

DEFAULT_LIMIT = 1000


class Lagged(Exception):
    """A reader was too slow: items after those it has read are lost to it."""


@dataclass(frozen=True, slots=True)
class BroadcastStatistics:
    readers: int
    published: int
    lagged: int
    longest_queue: int


class Broadcast(Generic[T]):
    """Hands each published item to everybody who is subscribed at that moment, in order."""

    def __init__(self) -> None:
        # Everybody inside a `subscribe` block, in the order they came.
        self._readers: dict[Subscription[T], None] = {}
        self._published = self._lagged = 0

    def publish(self, item: T) -> None:
        self._published += 1
        for reader in self._readers:
            if not reader.put_nowait(item):
                self._lagged += 1

    @contextmanager
    def subscribe(self, limit: int = DEFAULT_LIMIT) -> Iterator[Subscription[T]]:
        """Read everything published from now on, at most `limit` items behind."""
        reader: Subscription[T] = Subscription(limit)
        self._readers[reader] = None
        try:
            yield reader
        finally:
            del self._readers[reader]

    def statistics(self) -> BroadcastStatistics:
        return BroadcastStatistics(
            readers=len(self._readers),
            published=self._published,
            lagged=self._lagged,
            longest_queue=max((len(reader) for reader in self._readers), default=0),
        )


class Subscription(Generic[T]):
    """One reader's place; an async iterator that ends only with `Lagged`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Published and not yet read, oldest first; at most `_limit`.
        self._items: deque[T] = deque()
        # Set once, when an item had to be thrown away; nothing is queued after that.
        self._lost = False
        # The reader, if it waits; then `_items` is empty.
        self._waiting: Future[None] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def __aiter__(self) -> Subscription[T]:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._lost:
                raise Lagged(f"fell more than {self._limit} items behind")
            if self._waiting is not None:
                raise RuntimeError("a subscription has one reader")
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        return self._items.popleft()

    def put_nowait(self, item: T) -> bool:
        """Queue `item`; False if this is what made the reader lose its place."""
        if self._lost:
            return True
        if len(self._items) >= self._limit:
            self._lost = True
            return False
        self._items.append(item)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        return True

"""A queue of keys to look at, for any number of workers.

The rules every controller rests on:

- a key that is added twice before anybody took it is handed out once;
- a key is held by one worker at a time;
- a key that is added while it is being worked on is handed out again afterwards,
  so no change is ever lost;
- a key that failed comes back after a delay that doubles from 5 ms to 1000 s, until
  it is forgotten.

Ends by cancelling its workers; there is nothing to shut down but pending timers,
which hold no task and are dropped with the queue by `close()`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, TypeVar

from pybernetes.aio.backoff import Backoff

if TYPE_CHECKING:
    from asyncio import Future, TimerHandle
    from collections.abc import AsyncIterator, Hashable

    K = TypeVar("K", bound=Hashable)
else:
    K = TypeVar("K")

RETRY_BACKOFF = Backoff(timedelta(milliseconds=5), timedelta(seconds=1000))


@dataclass(frozen=True, slots=True)
class WorkQueueStatistics:
    """What a queue holds now, and what went through it since it was made."""

    ready: int
    working: int
    delayed: int
    failing: int
    added: int
    retried: int
    finished: int
    longest_running_seconds: float


class WorkQueue(Generic[K]):
    """Keys waiting to be looked at. Bounded by the number of distinct keys.

    Invariants, checked by `check_invariants()`:
    every key in `_ready` is in `_dirty` and not in `_working`, once;
    every key in `_dirty` is in `_ready` or in `_working`.
    """

    def __init__(self, *, backoff: Backoff = RETRY_BACKOFF) -> None:
        self._backoff = backoff
        # Keys waiting for a worker, oldest first.
        self._ready: deque[K] = deque()
        # Keys somebody wants looked at, and that were not yet handed out since.
        self._dirty: set[K] = set()
        # Keys in the hands of a worker, and since when (loop time).
        self._working: dict[K, float] = {}
        # Workers waiting for a key, longest waiting first. Some may be cancelled.
        self._idle: deque[Future[None]] = deque()
        # The one pending `add_after` of each key: the earliest asked for.
        self._timers: dict[K, TimerHandle] = {}
        # Failures in a row of each key that was retried and not forgotten.
        self._failures: dict[K, int] = {}
        self._added = self._retried = self._finished = 0

    def add(self, key: K) -> None:
        """Have `key` looked at as soon as a worker is free."""
        if key in self._dirty:
            return
        self._added += 1
        self._dirty.add(key)
        if key not in self._working:
            self._ready.append(key)
            self._wake_one()

    def add_after(self, key: K, delay: timedelta) -> None:
        """Add `key` after `delay`, or earlier if something earlier was already asked for."""
        seconds = delay.total_seconds()
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + seconds
        pending = self._timers.get(key)
        if pending is not None:
            if pending.when() <= at:
                return
            pending.cancel()
        self._timers[key] = loop.call_at(at, self._timer_fired, key)

    def retry(self, key: K) -> None:
        """Add `key` again after its back-off, because looking at it failed."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self._retried += 1
        self.add_after(key, self._backoff.delay(failures))

    def forget(self, key: K) -> None:
        """Start the back-off of `key` from the beginning, because it went well."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """How often `key` was retried since it was last forgotten."""
        return self._failures.get(key, 0)

    @asynccontextmanager
    async def next(self) -> AsyncIterator[K]:
        """Wait for a key and hold it for the length of the block."""
        key = await self._take()
        try:
            yield key
        finally:
            self._done(key)

    def close(self) -> None:
        """Drop the pending timers. Keys already waiting stay."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def __len__(self) -> int:
        """How many keys wait for a worker."""
        return len(self._ready)

    def statistics(self) -> WorkQueueStatistics:
        longest = 0.0
        if self._working:
            longest = asyncio.get_running_loop().time() - min(self._working.values())
        return WorkQueueStatistics(
            ready=len(self._ready),
            working=len(self._working),
            delayed=len(self._timers),
            failing=len(self._failures),
            added=self._added,
            retried=self._retried,
            finished=self._finished,
            longest_running_seconds=longest,
        )

    def check_invariants(self) -> None:
        ready = set(self._ready)
        assert len(ready) == len(self._ready), "a key waits twice"
        assert ready <= self._dirty, "a key waits that nobody wants looked at"
        assert not ready & self._working.keys(), "a key waits while it is worked on"
        assert self._dirty <= ready | self._working.keys(), "a key was lost"

    async def _take(self) -> K:
        loop = asyncio.get_running_loop()
        while not self._ready:
            future = loop.create_future()
            self._idle.append(future)
            try:
                await future
            except asyncio.CancelledError:
                # Woken and cancelled in the same breath: pass the wake-up on,
                # or the key would wait while other workers sleep.
                if future.done() and not future.cancelled() and self._ready:
                    self._wake_one()
                raise
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._working[key] = loop.time()
        return key

    def _done(self, key: K) -> None:
        del self._working[key]
        self._finished += 1
        if key in self._dirty:
            self._ready.append(key)
            self._wake_one()

    def _timer_fired(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    def _wake_one(self) -> None:
        while self._idle:
            future = self._idle.popleft()
            if not future.done():
                future.set_result(None)
                return

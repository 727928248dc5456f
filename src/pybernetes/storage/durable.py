"""The durable store: a ledger in front of a journal, with group commit.

The life of a durable write: it is queued; when the writer thread is free, everything
queued is decided in order, against the present and against what was decided just
before it, and goes to the disk as one commit; when that is durable, the changes are
applied to the ledger, followers and watchers are told, and only then the writers.
A relaxed write is applied at once if nothing undecided is before it, and joins the
backlog, which travels with the next commit or is flushed after a while.

Rules:

* at most one commit is under way, so a decision never rests on a write that may
  yet fail, except within its own batch, which succeeds or fails as a whole;
* nothing becomes visible before a durable write with a smaller revision is on disk;
* a revision is handed out once. Those of a failed batch are never used again, and
  relaxed writes take theirs from a block that the disk knows to be reserved.
"""

from __future__ import annotations

import asyncio
import logging
import math
from array import array
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from pybernetes.storage.backlog import Backlog
from pybernetes.storage.batch import Batch, Pending, decide_queue
from pybernetes.storage.journal import Commit, Journal, Opened, Row, Upkeep, UpkeepDone
from pybernetes.storage.ledger import Entry, HistoryLimits, Ledger, Write, decide, result_of
from pybernetes.storage.past import PastReader
from pybernetes.storage.store import (
    Change,
    Durability,
    KeyValue,
    Problem,
    Range,
    Statistics,
    StoreClosed,
    StoreError,
    StoreFailed,
    Subscription,
    Unreadable,
)
from pybernetes.storage.watch import Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from pybernetes.aio.clock import Clock
    from pybernetes.storage.writerthread import WriterThread

log = logging.getLogger(__name__)

# How many revisions are reserved ahead. A crash skips at most this many.
REVISION_BLOCK = 10_000
# A backlog of this size is flushed at once; beyond the second, while the disk
# fails, relaxed writes are refused.
BACKLOG_BYTES = 4 * 1024 * 1024
BACKLOG_LIMIT_BYTES = 64 * 1024 * 1024
# After a failed flush the next attempt comes this much later.
FLUSH_RETRY_SECONDS = 10.0
# After this many bytes of rows the journal is given the live revisions, so that the
# next start need not read all of the history.
LIVE_EVERY_BYTES = 16 * 1024 * 1024
# What a row costs on disk beyond its value, about.
ROW_BYTES = 80


@dataclass(frozen=True, slots=True)
class DurableOptions:
    """How a durable store keeps its past and how long relaxed writes may wait."""

    history: HistoryLimits = field(default_factory=HistoryLimits)
    # The part of the history that is also in memory.
    window: HistoryLimits = field(
        default_factory=lambda: HistoryLimits(timedelta(hours=1), 8 * 1024 * 1024)
    )
    # Creations and deletions (an event) are worth a write sooner than overwrites
    # (a renewed lease), whose predecessor is on the disk.
    flush_new_after: timedelta = timedelta(seconds=60)
    flush_overwrites_after: timedelta = timedelta(minutes=5)


class DurableStore:
    """A `Store` that survives. Made by a backend's `open`, which has read the journal."""

    def __init__(
        self,
        journal: Journal,
        thread: WriterThread,
        opened: Opened,
        *,
        clock: Clock,
        options: DurableOptions,
    ) -> None:
        self._journal = journal
        self._thread = thread
        self._clock = clock
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._ledger = Ledger(opened.revision)
        self._ledger.load(opened.items)
        self._ledger.compacted = opened.floor
        self._ledger.gaps = opened.gaps
        self._past = PastReader(self._ledger, journal, thread)
        # Live keys whose row cannot be read, with its revision.
        self._damaged = {key: revision for revision, key in opened.damaged.items() if key}
        # Live rows that cannot be read and whose key is not known either.
        self._nameless = [revision for revision, key in opened.damaged.items() if not key]
        self._found_problems = list(opened.problems)
        # Why the last commit failed; empty if it did not.
        self._failure = ""
        # The newest revision handed out, and the newest that may be without asking the disk.
        self._last_revision = opened.revision
        self._reserved = opened.reserved
        # The newest revision up to which the disk has everything.
        self._flushed = opened.revision
        # Writes not yet decided, in order. Bounded by the callers, each of whom waits.
        self._queue: deque[Pending] = deque()
        self._batch: Batch | None = None
        self._pump_scheduled = False
        self._backlog = Backlog()
        self._flush_timer: asyncio.TimerHandle | None = None
        self._bytes_since_live = 0
        self._live_wanted = False
        self._upkeep_running = False
        self._closing = False
        self._closed: asyncio.Future[None] = self._loop.create_future()
        # Made by who waits until nothing is queued and no commit is under way; done and
        # forgotten by the pump.
        self._quiet: asyncio.Future[None] | None = None
        self._commits = self._failed_commits = self._rows_written = 0
        self._commit_seconds = 0.0

    # ---- reading

    @property
    def revision(self) -> int:
        return self._ledger.revision

    async def get(self, key: str, *, revision: int | None = None) -> KeyValue | None:
        self._check_open()
        if revision is None or revision == self._ledger.revision:
            if key in self._damaged:
                raise Unreadable(key, self._damaged[key])
            return self._ledger.current(key)
        self._ledger.check_readable(revision)
        if revision >= self._ledger.window_start:
            return self._ledger.get_at(key, revision)
        past = await self._past.undone(key, "", revision)
        return past[key] if key in past else self._ledger.current(key)

    async def range(
        self, prefix: str, *, after: str = "", limit: int = 0, revision: int | None = None
    ) -> Range:
        self._check_open()
        ledger = self._ledger
        if revision is None:
            revision = ledger.revision
        ledger.check_readable(revision)
        if revision >= ledger.window_start:
            return ledger.range_at(prefix, after=after, limit=limit, revision=revision)
        past = await self._past.undone(prefix, after, revision)
        return ledger.page(past, prefix, after=after, limit=limit, revision=revision)

    def watch(
        self, prefix: str, *, since: int
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Change]]]:
        return Watch(
            self._ledger,
            prefix,
            since,
            read_older=self._past.changes,
            is_closed=lambda: self._closing,
        )

    def follow(
        self, prefix: str, callback: Callable[[Sequence[Change]], None], *, since: int
    ) -> Subscription:
        self._check_open()
        return self._ledger.follow(prefix, callback, since=since)

    # ---- writing

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        if_revision: int | None = None,
        durability: Durability = Durability.DURABLE,
    ) -> KeyValue:
        return await self._write(Write(key, value, if_revision), durability)

    async def delete(
        self,
        key: str,
        *,
        if_revision: int | None = None,
        durability: Durability = Durability.DURABLE,
    ) -> KeyValue:
        return await self._write(Write(key, None, if_revision), durability)

    async def _write(self, write: Write, durability: Durability) -> KeyValue:
        self._check_open()
        # Nothing undecided or invisible is before a write if the queue is empty and the
        # commit under way, if there is one, only flushes what is visible already.
        is_first = not self._queue and (self._batch is None or not self._batch.entries)
        if durability is Durability.RELAXED and is_first and self._has_room():
            return result_of(self._apply_relaxed(write))
        pending = Pending(write, durability, self._loop.create_future())
        self._queue.append(pending)
        self._schedule_pump()
        return await pending.future

    def _has_room(self) -> bool:
        """Whether a relaxed write may go ahead of the disk any further."""
        return self._last_revision < self._reserved and self._backlog.bytes <= BACKLOG_LIMIT_BYTES

    def _apply_relaxed(self, write: Write) -> Entry:
        entry = self._decide(write, self._ledger.current(write.key))
        overwrites = entry.before is not None and entry.after is not None
        options = self._options
        wait = options.flush_overwrites_after if overwrites else options.flush_new_after
        due = self._loop.time() + wait.total_seconds()
        if self._backlog.bytes > BACKLOG_BYTES or self._is_block_low():
            due = self._loop.time()
        self._backlog.add(self._row_of(entry, relaxed=True), due)
        self._apply((entry,))
        self._arrange_flush()
        return entry

    def _decide(self, write: Write, current: KeyValue | None) -> Entry:
        entry = decide(write, current, self._last_revision + 1, self._clock.now())
        self._last_revision += 1
        return entry

    def _row_of(self, entry: Entry, *, relaxed: bool) -> Row:
        key = entry.change.key
        # A new value takes the place of a damaged one, and has it trimmed in time.
        replaced = self._damaged.get(key, 0)
        previous = replaced if entry.before is None else entry.before.revision
        return Row(
            revision=entry.revision,
            key=key,
            previous=previous,
            created=entry.revision if entry.before is None else entry.before.created,
            at_ms=int(entry.at.timestamp() * 1000),
            value=entry.change.value,
            relaxed=relaxed,
        )

    def _apply(self, entries: Sequence[Entry]) -> None:
        for entry in entries if self._damaged else ():
            self._damaged.pop(entry.change.key, None)
        self._ledger.apply(entries)

    # ---- the pump: from the queue to the disk

    def _schedule_pump(self) -> None:
        # Not at once: all writes of this turn of the loop should share a commit.
        if not self._pump_scheduled and self._batch is None:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Begin the next commit, if none is under way and there is something to write."""
        self._pump_scheduled = False
        if self._batch is not None:
            return
        while self._queue:
            if self._queue[0].durability is Durability.RELAXED:
                if not self._has_room() and not self._failure:
                    self._start(self._new_batch())
                    return
                self._settle_relaxed(self._queue.popleft())
                continue
            entries, outcomes = decide_queue(self._queue, self._ledger.current, self._decide)
            if entries:
                batch = self._new_batch()
                batch.entries, batch.outcomes = entries, outcomes
                self._start(batch)
                return
        if self._backlog.is_due(self._loop.time()):
            self._start(self._new_batch())
        elif self._quiet is not None:
            self._quiet.set_result(None)
            self._quiet = None

    def _settle_relaxed(self, pending: Pending) -> None:
        if pending.future.done():
            return
        try:
            if not self._has_room():
                raise StoreFailed(f"too much waits for the disk already: {self._failure}")
            entry = self._apply_relaxed(pending.write)
        except StoreError as error:
            pending.future.set_exception(error)
        else:
            pending.future.set_result(result_of(entry))

    def _new_batch(self) -> Batch:
        """A batch with all of the backlog, which begins anew."""
        batch = Batch(flushing=self._backlog)
        self._backlog = Backlog()
        return batch

    def _start(self, batch: Batch) -> None:
        """Hand a batch to the writer thread."""
        rows = batch.flushing
        if batch.entries:
            rows = Backlog(batch.flushing)
            relaxed = batch.relaxed_revisions()
            for entry in batch.entries:
                rows.add(self._row_of(entry, relaxed=entry.revision in relaxed))
        batch.bytes = rows.bytes
        if self._is_block_low():
            batch.reserved = self._last_revision + REVISION_BLOCK
        if batch.clean:
            batch.reserved = self._last_revision
        live = None
        if self._live_wanted or batch.clean or self._bytes_since_live > LIVE_EVERY_BYTES:
            batch.with_live = True
            live = (self._live_revisions(batch), self._last_revision)
        commit = Commit(list(rows), batch.reserved, live, batch.clean)
        self._batch = batch
        batch.started = self._clock.monotonic()
        future = self._thread.submit(partial(self._journal.commit, commit))
        future.add_done_callback(self._finish_batch)

    def _live_revisions(self, batch: Batch) -> array[int]:
        """The revisions of all live rows once this batch is on the disk.

        The batch carries the whole backlog, so that every current value has its row.
        """
        live = {item.key: item.revision for item in self._ledger.all_current()}
        live.update(self._damaged)
        for entry in batch.entries:
            if entry.after is None:
                live.pop(entry.change.key, None)
            else:
                live[entry.change.key] = entry.revision
        return array("q", sorted([*live.values(), *self._nameless]))

    def _finish_batch(self, future: asyncio.Future[bool]) -> None:
        batch = self._batch
        assert batch is not None
        self._batch = None
        self._commit_seconds += self._clock.monotonic() - batch.started
        try:
            upkeep_is_due = future.result()
        except Exception as error:
            self._undo_batch(batch, error)
        else:
            self._conclude_batch(batch)
            # With the live revisions on disk, trimming can go on where it had to stop.
            if upkeep_is_due or batch.with_live:
                self._start_upkeep()
        self._arrange_flush()
        self._pump()

    def _conclude_batch(self, batch: Batch) -> None:
        self._commits += 1
        self._rows_written += len(batch.flushing) + len(batch.entries)
        if self._failure:
            log.info("the store can write again")
            self._failure = ""
        if batch.reserved is not None:
            self._reserved = batch.reserved
        self._bytes_since_live += batch.bytes
        if batch.with_live:
            self._bytes_since_live = 0
            self._live_wanted = False
        if batch.entries:
            self._flushed = batch.entries[-1].revision
            self._apply(batch.entries)
        elif batch.flushing:
            self._flushed = max(row.revision for row in batch.flushing)
        self._shrink_window()
        for pending, outcome in batch.outcomes:
            if pending.future.done():
                continue
            if isinstance(outcome, Entry):
                pending.future.set_result(result_of(outcome))
            else:
                pending.future.set_exception(outcome)

    def _undo_batch(self, batch: Batch, error: Exception) -> None:
        """Nothing of the batch happened: fail what needed the disk, decide the rest anew."""
        self._failed_commits += 1
        if not self._failure:
            log.error("the store cannot write: %s", error)
        self._failure = str(error) or repr(error)
        again: list[Pending] = []
        for pending, outcome in batch.outcomes:
            if pending.future.done():
                continue
            if isinstance(outcome, Entry) and pending.durability is Durability.DURABLE:
                pending.future.set_exception(StoreFailed(self._failure))
            else:
                again.append(pending)
        self._queue.extendleft(reversed(again))
        newer = self._backlog
        self._backlog = Backlog([*batch.flushing, *newer])
        if self._backlog:
            self._backlog.due = self._loop.time() + FLUSH_RETRY_SECONDS
        self._shrink_window()

    # ---- flushing, forgetting

    def _is_block_low(self) -> bool:
        return self._reserved - self._last_revision < REVISION_BLOCK // 2

    def _arrange_flush(self) -> None:
        """Set the alarm for the backlog, or put it off."""
        due = self._backlog.due
        if self._flush_timer is not None:
            if self._flush_timer.when() == due:
                return
            self._flush_timer.cancel()
            self._flush_timer = None
        if due < math.inf:
            self._flush_timer = self._loop.call_at(due, self._flush)

    def _flush(self) -> None:
        self._flush_timer = None
        # The loop calls a little early, as far as its clock is coarse. A backlog that was
        # swapped meanwhile is not meant.
        if self._backlog:
            self._backlog.due = min(self._backlog.due, self._loop.time())
        self._schedule_pump()

    def _shrink_window(self) -> None:
        ledger, window = self._ledger, self._options.window
        excess = ledger.excess(window, self._clock.now())
        # What the disk does not have yet is in the window only.
        ledger.shrink_window(before=min(excess, self._flushed))
        if self._failure and ledger.window_bytes > 4 * window.size_bytes:
            # A failing disk must not fill the memory: then the history is what gives way.
            ledger.compact(excess)

    def _start_upkeep(self) -> None:
        if self._upkeep_running or self._closing:
            return
        self._upkeep_running = True
        history = self._options.history
        oldest = self._clock.now() - history.age
        upkeep = Upkeep(
            expired_before_ms=int(oldest.timestamp() * 1000),
            max_history_bytes=history.size_bytes,
            live_bytes=self._ledger.live_bytes + ROW_BYTES * len(self._ledger),
        )
        future = self._thread.submit(partial(self._journal.upkeep, upkeep))
        future.add_done_callback(self._finish_upkeep)

    def _finish_upkeep(self, future: asyncio.Future[UpkeepDone]) -> None:
        self._upkeep_running = False
        try:
            done = future.result()
        except Exception as error:
            # History that stays too long is no reason to stop; the next commit asks again.
            log.warning("the store could not trim its history: %s", error)
            return
        self._note_floor(done)
        if done.again and not done.wants_live:
            self._start_upkeep()

    def _note_floor(self, done: UpkeepDone) -> None:
        self._live_wanted = self._live_wanted or done.wants_live
        if done.floor > self._ledger.compacted:
            self._ledger.compact(min(done.floor, self._ledger.revision))

    async def compact(self, revision: int) -> None:
        self._check_open()
        self._ledger.compact(revision)
        while not self._closing:
            done = await self._thread.submit(partial(self._journal.trim, revision))
            self._note_floor(done)
            if done.wants_live:
                await self.flush()
            elif not done.again:
                return

    async def flush(self) -> None:
        """Bring every relaxed write that is visible now to the disk."""
        if self._backlog:
            self._backlog.due = self._loop.time()
        failed = self._failed_commits
        await self._wait_quiet(force=self._live_wanted)
        if self._failed_commits != failed and self._failure:
            raise StoreFailed(self._failure)

    async def _wait_quiet(self, *, force: bool = False) -> None:
        """Wait until everything queued is decided and no commit is under way."""
        if force and self._batch is None and not self._queue:
            self._start(self._new_batch())
        while self._batch is not None or self._queue or self._backlog.is_due(self._loop.time()):
            self._schedule_pump()
            if self._quiet is None:
                self._quiet = self._loop.create_future()
            await asyncio.shield(self._quiet)

    async def backup(self, path: Path) -> None:
        """Write a copy of the whole store, as of now, to a new file at `path`.

        A store opened from it continues far beyond every revision handed out here, so
        that no reader can mistake one for the other.
        """
        self._check_open()
        await self.flush()
        await self._thread.submit(partial(self._journal.backup, path))

    # ---- the rest

    def problems(self) -> Sequence[Problem]:
        found = [
            problem
            for problem in self._found_problems
            if not problem.key or problem.key in self._damaged
        ]
        if self._failure:
            found.append(Problem("", 0, f"writes fail: {self._failure}"))
        return tuple(found)

    def statistics(self) -> Statistics:
        ledger = self._ledger
        return Statistics(
            keys=len(ledger),
            revision=ledger.revision,
            compacted=ledger.compacted,
            live_bytes=ledger.live_bytes,
            window_bytes=ledger.window_bytes,
            backlog_rows=len(self._backlog) + (len(self._batch.flushing) if self._batch else 0),
            commits=self._commits,
            failed_commits=self._failed_commits,
            rows_written=self._rows_written,
            commit_seconds=self._commit_seconds,
        )

    def check_invariants(self) -> None:
        """Raise AssertionError if the store contradicts itself."""
        self._ledger.check_invariants()
        self._backlog.check_invariants()
        assert self._ledger.revision <= self._last_revision
        assert self._ledger.window_start <= max(self._flushed, self._ledger.compacted)
        for row in self._backlog:
            assert self._flushed < row.revision <= self._reserved

    async def close(self) -> None:
        if self._closing:
            await asyncio.shield(self._closed)
            return
        self._closing = True
        try:
            await self._wait_quiet()
            batch = self._new_batch()
            batch.clean = True
            self._start(batch)
            await self._wait_quiet()
        finally:
            await self._thread.submit(self._journal.close)
            await self._thread.stop()
            if self._flush_timer is not None:
                self._flush_timer.cancel()
            self._closed.set_result(None)
            self._ledger.wake()
        if self._failure:
            raise StoreFailed(f"relaxed writes were lost on closing: {self._failure}")

    def _check_open(self) -> None:
        if self._closing:
            raise StoreClosed("the store is closed")

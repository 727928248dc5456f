"""The ledger: a store's present and recent past, in memory and without waiting.

Both backends keep one. It holds the current value of every key, an index of the
keys in order, and a window of the latest changes, from which it answers reads in
the past, watches and follows. Backends decide when a change becomes visible and
then `apply` it; the ledger itself never waits and does no input or output.

Rules it keeps (`check_invariants` tests them):

* `apply` takes changes in revision order and hands each to every follower and
  watcher before it returns;
* the window is a gapless tail of the history: everything after `window_start`;
* `compacted` <= `window_start` <= `revision`. Between the first two a backend may
  have older history elsewhere (on disk), which it hands to watches itself.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pybernetes.storage.store import (
    Change,
    Compacted,
    FutureRevision,
    KeyNotFound,
    KeyValue,
    Range,
    RevisionMismatch,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

log = logging.getLogger(__name__)

# What one entry of the window costs beyond the value it keeps alive.
ENTRY_BYTES = 400


@dataclass(frozen=True, slots=True)
class HistoryLimits:
    """How much of the past is kept: whatever is older or more than this may go."""

    age: timedelta = timedelta(hours=24)
    size_bytes: int = 256 * 1024 * 1024


class Entry:
    """One change, with what it replaced, when it happened, and what its keeping costs."""

    __slots__ = ("after", "at", "before", "change", "revision", "size")

    def __init__(
        self, before: KeyValue | None, after: KeyValue | None, revision: int, at: datetime
    ):
        known = before if after is None else after
        assert known is not None
        self.before = before
        self.after = after
        self.revision = revision
        self.at = at
        self.size = ENTRY_BYTES + (0 if before is None else len(before.value))
        self.change = Change(
            key=known.key,
            value=None if after is None else after.value,
            previous=None if before is None else before.value,
            revision=revision,
            created=before is None,
        )


@dataclass(frozen=True, slots=True)
class Write:
    """A put (or a deletion, when `value` is None) that wants to happen."""

    key: str
    value: bytes | None
    if_revision: int | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Revisions that were handed out and lost: nobody may resume from `first`..`last`."""

    first: int
    last: int


def decide(write: Write, current: KeyValue | None, revision: int, at: datetime) -> Entry:
    """What `write` does to a key that is `current`, if it may; raises if it may not."""
    found = 0 if current is None else current.revision
    if write.value is None and current is None:
        raise KeyNotFound(write.key)
    if write.if_revision is not None and write.if_revision != found:
        raise RevisionMismatch(write.key, write.if_revision, current)
    after = None
    if write.value is not None:
        created = revision if current is None else current.created
        after = KeyValue(write.key, write.value, revision, created)
    return Entry(current, after, revision, at)


def result_of(entry: Entry) -> KeyValue:
    """What the writer of `entry` is told."""
    if entry.after is not None:
        return entry.after
    assert entry.before is not None
    return KeyValue(entry.before.key, entry.before.value, entry.revision, entry.before.created)


def end_of(prefix: str) -> str | None:
    """The smallest string greater than all that begin with `prefix`; None if there is none."""
    while prefix:
        last = ord(prefix[-1])
        if last < 0x10FFFF:
            return prefix[:-1] + chr(last + 1)
        prefix = prefix[:-1]
    return None


class Follower:
    """A callback, told of the changes below its prefix as they are applied."""

    def __init__(
        self, ledger: Ledger, prefix: str, callback: Callable[[Sequence[Change]], None]
    ) -> None:
        self._ledger = ledger
        self.prefix = prefix
        self._callback = callback
        self._cancelled = False

    def tell(self, changes: Sequence[Change]) -> None:
        if self._cancelled:
            return
        try:
            self._callback(changes)
        except Exception:
            # One reader's failure must not end the writer or the other readers.
            log.exception("a follower of %s failed", self.prefix)

    def cancel(self) -> None:
        self._cancelled = True
        self._ledger.forget_follower(self)


class Ledger:
    """Current values, key order and the window of recent changes of one store."""

    def __init__(self, revision: int = 1) -> None:
        # The value of every key that exists.
        self._current: dict[str, KeyValue] = {}
        # The same keys, sorted.
        self._keys: list[str] = []
        # The changes after window_start, oldest first.
        self._window: list[Entry] = []
        # The sum of the sizes of the entries in _window.
        self.window_bytes = 0
        # The sum of the lengths of the values in _current.
        self.live_bytes = 0
        self.revision = revision
        self.window_start = revision
        self.compacted = revision
        # Lost revisions above `compacted`, in order.
        self.gaps: tuple[Gap, ...] = ()
        # Who is told of changes, in the order they came.
        self._followers: list[Follower] = []
        # Called after each apply and whenever `wake` is called; see `watch.Watch`.
        self._wakers: dict[object, Callable[[], None]] = {}

    # ---- the present

    def __len__(self) -> int:
        return len(self._keys)

    def current(self, key: str) -> KeyValue | None:
        return self._current.get(key)

    def all_current(self) -> Iterable[KeyValue]:
        """Every key's value, in no particular order."""
        return self._current.values()

    def load(self, items: Iterable[KeyValue]) -> None:
        """Take over the present of a store that was opened; only for a new ledger."""
        self._current = {item.key: item for item in items}
        self._keys = sorted(self._current)
        self.live_bytes = sum(len(item.value) for item in self._current.values())

    # ---- writing

    def apply(self, entries: Sequence[Entry]) -> None:
        """Make the changes visible, and tell everyone."""
        for entry in entries:
            self._apply_one(entry)
        if not entries:
            return
        self.revision = entries[-1].revision
        self._tell([entry.change for entry in entries])

    def _apply_one(self, entry: Entry) -> None:
        key = entry.change.key
        if entry.before is None:
            insort(self._keys, key)
        else:
            self.live_bytes -= len(entry.before.value)
        if entry.after is None:
            del self._keys[bisect_left(self._keys, key)]
            del self._current[key]
        else:
            self.live_bytes += len(entry.after.value)
            self._current[key] = entry.after
        self._window.append(entry)
        self.window_bytes += entry.size

    def _tell(self, changes: list[Change]) -> None:
        for follower in tuple(self._followers):
            prefix = follower.prefix
            if len(changes) == 1:
                if changes[0].key.startswith(prefix):
                    follower.tell(changes)
                continue
            mine = [change for change in changes if change.key.startswith(prefix)]
            if mine:
                follower.tell(mine)
        self.wake()

    def wake(self) -> None:
        """Let every watch look again: something was applied, compacted or closed."""
        for waker in tuple(self._wakers.values()):
            waker()

    # ---- reading

    def check_readable(self, revision: int) -> None:
        """Raise unless `revision` is one that a reader may go back to."""
        if revision > self.revision:
            raise FutureRevision(revision, self.revision)
        self.check_resumable(revision)

    def check_resumable(self, revision: int) -> None:
        """Raise unless a reader who has seen everything up to `revision` can go on."""
        self.check_kept(revision)
        for gap in self.gaps:
            if gap.first <= revision <= gap.last:
                raise Compacted(revision, gap.last + 1)

    def check_kept(self, revision: int) -> None:
        """Raise if part of the history after `revision` is gone."""
        if revision < self.compacted:
            raise Compacted(revision, self.compacted)

    def get_at(self, key: str, revision: int) -> KeyValue | None:
        """The key as it was at a revision within the window."""
        for entry in self._window[self._position(revision) :]:
            if entry.change.key == key:
                return entry.before
        return self._current.get(key)

    def range_at(self, prefix: str, *, after: str, limit: int, revision: int) -> Range:
        """A page as it was at a revision within the window."""
        return self.page(
            self.undone(prefix, after, revision),
            prefix,
            after=after,
            limit=limit,
            revision=revision,
        )

    def undone(self, prefix: str, after: str, revision: int) -> dict[str, KeyValue | None]:
        """The keys in the range that changed after `revision`, as they were then."""
        past: dict[str, KeyValue | None] = {}
        for entry in self._window[self._position(revision) :]:
            key = entry.change.key
            if key > after and key.startswith(prefix) and key not in past:
                past[key] = entry.before
        return past

    def page(
        self,
        past: dict[str, KeyValue | None],
        prefix: str,
        *,
        after: str,
        limit: int,
        revision: int,
    ) -> Range:
        """A page of the present with `past` laid over it."""
        low, high = self._bounds(prefix, after)
        current = self._current
        keys: Sequence[str]
        if not past:
            stop = high if limit <= 0 else min(high, low + limit)
            items = [current[key] for key in self._keys[low:stop]]
            return Range(items, revision, high - stop)
        present = {key: current[key] for key in self._keys[low:high]}
        for key, value in past.items():
            if value is None:
                present.pop(key, None)
            else:
                present[key] = value
        keys = sorted(present)
        chosen = keys if limit <= 0 else keys[:limit]
        return Range([present[key] for key in chosen], revision, len(keys) - len(chosen))

    def _bounds(self, prefix: str, after: str) -> tuple[int, int]:
        low = bisect_left(self._keys, prefix)
        end = end_of(prefix)
        high = len(self._keys) if end is None else bisect_left(self._keys, end, low)
        if after:
            low = min(high, max(low, bisect_right(self._keys, after)))
        return low, high

    def _position(self, revision: int) -> int:
        """The place in the window of the first change after `revision`."""
        if revision >= self.revision:
            return len(self._window)
        return bisect_right(self._window, revision, key=lambda entry: entry.revision)

    # ---- followers and watchers

    def changes_since(self, prefix: str, since: int, limit: int) -> tuple[list[Change], int]:
        """Up to `limit` changes after `since`, and the revision up to which they are all."""
        found: list[Change] = []
        for entry in self._window[self._position(since) :]:
            if entry.change.key.startswith(prefix):
                found.append(entry.change)
                if len(found) == limit:
                    return found, entry.revision
        return found, max(since, self.revision)

    def follow(
        self, prefix: str, callback: Callable[[Sequence[Change]], None], *, since: int
    ) -> Follower:
        self.check_resumable(since)
        if since < self.window_start:
            raise Compacted(since, self.window_start)
        follower = Follower(self, prefix, callback)
        missed, _ = self.changes_since(prefix, since, 0)
        if missed:
            follower.tell(missed)
        self._followers.append(follower)
        return follower

    def forget_follower(self, follower: Follower) -> None:
        if follower in self._followers:
            self._followers.remove(follower)

    def add_waker(self, owner: object, waker: Callable[[], None]) -> None:
        self._wakers[owner] = waker

    def remove_waker(self, owner: object) -> None:
        self._wakers.pop(owner, None)

    # ---- forgetting

    def shrink_window(self, *, before: int) -> None:
        """Drop the changes up to and including revision `before` from memory."""
        before = min(before, self.revision)
        if before <= self.window_start:
            return
        count = self._position(before)
        self.window_bytes -= sum(entry.size for entry in self._window[:count])
        del self._window[:count]
        self.window_start = before

    def excess(self, limits: HistoryLimits, now: datetime) -> int:
        """The newest revision that should leave the window, so that it keeps its bounds.

        Zero while the bounds are kept. Once one is passed, an eighth more goes than has
        to, since dropping the front of a list costs the same for one entry as for many.
        """
        if not self._window:
            return 0
        if self.window_bytes <= limits.size_bytes and now - self._window[0].at <= limits.age:
            return 0
        surplus = self.window_bytes - limits.size_bytes * 7 // 8
        oldest = now - limits.age * 7 // 8
        newest = 0
        for entry in self._window:
            if surplus <= 0 and entry.at >= oldest:
                break
            surplus -= entry.size
            newest = entry.revision
        return newest

    def compact(self, revision: int) -> None:
        """Forget the past before `revision`, here and for every reader."""
        if revision > self.revision:
            raise FutureRevision(revision, self.revision)
        if revision <= self.compacted:
            return
        self.compacted = revision
        self.shrink_window(before=revision)
        self.gaps = tuple(gap for gap in self.gaps if gap.last >= revision)
        self.wake()

    # ---- copies and checks

    def fork(self) -> Ledger:
        """An independent copy that shares every value; nobody follows or watches it."""
        copy = Ledger(self.revision)
        copy._current = self._current.copy()
        copy._keys = self._keys.copy()
        copy._window = self._window.copy()
        copy.window_bytes = self.window_bytes
        copy.live_bytes = self.live_bytes
        copy.window_start = self.window_start
        copy.compacted = self.compacted
        copy.gaps = self.gaps
        return copy

    def check_invariants(self) -> None:
        """Raise AssertionError if the ledger contradicts itself."""
        assert self._keys == sorted(self._current), "the index does not list the keys in order"
        assert self.live_bytes == sum(len(item.value) for item in self._current.values())
        assert self.window_bytes == sum(entry.size for entry in self._window)
        assert self.compacted <= self.window_start <= self.revision
        last = self.window_start
        for entry in self._window:
            assert last < entry.revision <= self.revision, "the window is out of order"
            last = entry.revision
        # Undoing every change, newest first, must fit what each one left behind.
        state: dict[str, KeyValue | None] = dict(self._current)
        for entry in reversed(self._window):
            key = entry.change.key
            assert state.get(key) == entry.after, f"{key} does not match its last change"
            state[key] = entry.before
        for key, item in self._current.items():
            assert key == item.key
            assert 0 < item.created <= item.revision <= self.revision

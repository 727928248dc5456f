"""The present and the recent past of one resource, in memory, fed by the store.

A `Feed` follows the store once per process and hands every change to the cache of its
resource before the write is acknowledged: a reader that has seen its write answered
sees it here. A `WatchCache` holds an `Entry` per object, their keys in order, and a
bounded window of events for watches that resume.

Rules it keeps (`check_invariants` tests them):

* `keys` is sorted and holds exactly the keys of `entries`;
* the window is gapless: every event of this resource with a revision greater than
  `window_start` is in it, in order;
* events are dispatched to watchers in the order of their revisions, each once.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left, bisect_right, insort
from collections import deque
from typing import TYPE_CHECKING

from pybernetes.apiserver.entry import Entry, Shape, canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pybernetes.apiserver.watch import Dispatcher
    from pybernetes.storage import Change, KeyValue, Store, Subscription

log = logging.getLogger(__name__)

REGISTRY = "/registry/"

# The window of events kept for resuming watches; older ones are read from the store.
WINDOW_EVENTS = 2048
WINDOW_BYTES = 4 * 1024 * 1024

# Objects read per page while the caches are filled.
PAGE = 5000


class Event:
    """What happened to an object: `entry` is its new state, or its last one if `deleted`."""

    __slots__ = ("deleted", "entry", "frames", "previous")

    def __init__(self, entry: Entry, previous: Entry | None, deleted: bool) -> None:
        self.entry = entry
        self.previous = previous
        self.deleted = deleted
        # Encoded watch events by whoever encodes them; see watch.Group.
        self.frames: dict[object, bytes] = {}

    @property
    def revision(self) -> int:
        return self.entry.revision


class WatchCache:
    """One resource. Created by `Feed.add`, which also fills it."""

    def __init__(self, prefix: str, kind: str, api_version: str, dispatcher: Dispatcher) -> None:
        self.prefix = prefix
        self.shape = Shape(kind, api_version)
        self.dispatcher = dispatcher
        self._kind, self._api_version = kind, api_version
        self.entries: dict[str, Entry] = {}
        self._keys: list[str] = []
        # Events with a revision greater than window_start, oldest first.
        self.window: deque[Event] = deque()
        self.window_start = 0
        self._window_bytes = 0
        # Revision of the newest event; 0 before the first.
        self.newest = 0
        # field → its value → keys of the objects that have it; for fields that are listed by often.
        self._indexes: dict[str, dict[str, set[str]]] = {}
        # Called with every change, before the write is acknowledged. They must not wait.
        self.listeners: list[Callable[[Event], None]] = []
        # Keys whose value in the store is not an object of this resource, with a sentence why.
        self.damaged: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def size_bytes(self) -> int:
        return sum(len(entry.value) for entry in self.entries.values())

    # -- filling

    def load(self, items: Iterable[KeyValue], revision: int) -> None:
        """Take the state as of `revision`; only before the first change."""
        for item in items:
            if (entry := self._entry(item.key, item.revision, item.value)) is not None:
                self.entries[entry.key] = entry
        self._keys = sorted(self.entries)
        self.window_start = max(self.window_start, revision)

    def apply(self, change: Change) -> None:
        key = change.key[len(self.prefix) :]
        previous = self.entries.get(key)
        if change.value is None:
            self.damaged.pop(key, None)
            if previous is None:
                return
            del self.entries[key]
            del self._keys[bisect_left(self._keys, key)]
            event = Event(previous.at_revision(change.revision), previous, True)
        else:
            entry = self._entry(change.key, change.revision, change.value)
            if entry is None:
                self._lose(previous, change.revision)
                return
            self.entries[key] = entry
            if previous is None:
                insort(self._keys, key)
            event = Event(entry, previous, False)
        self._tell(event)

    def _lose(self, previous: Entry | None, revision: int) -> None:
        """An object was overwritten by something unreadable: to readers it is gone."""
        if previous is None:
            return
        del self.entries[previous.key]
        del self._keys[bisect_left(self._keys, previous.key)]
        self._tell(Event(previous.at_revision(revision), previous, True))

    def _tell(self, event: Event) -> None:
        self.newest = event.revision
        if self._indexes:
            self._reindex(event.entry.key, event.previous, None if event.deleted else event.entry)
        self._remember(event)
        for listener in self.listeners:
            listener(event)
        self.dispatcher.publish(event)

    def entry_of(self, item: KeyValue) -> Entry | None:
        """An entry for a value read from the store's past; it is not kept."""
        return self._entry(item.key, item.revision, item.value)

    def _entry(self, path: str, revision: int, value: bytes) -> Entry | None:
        key = path[len(self.prefix) :]
        if not self.shape.is_sound(value):
            repaired = canonical(value, self._kind, self._api_version)
            if repaired is None or not self.shape.is_sound(repaired):
                self.damaged[key] = "the stored value is not an object"
                log.error("unreadable object left out", extra={"key": path, "revision": revision})
                return None
            value = repaired
        if self.damaged:
            self.damaged.pop(key, None)
        return Entry(key, revision, value)

    def _remember(self, event: Event) -> None:
        self.window.append(event)
        self._window_bytes += len(event.entry.value)
        while len(self.window) > WINDOW_EVENTS or self._window_bytes > WINDOW_BYTES:
            oldest = self.window.popleft()
            self._window_bytes -= len(oldest.entry.value)
            self.window_start = oldest.revision

    # -- reading

    def get(self, key: str) -> Entry | None:
        return self.entries.get(key)

    def select(self, namespace: str = "", *, after: str = "") -> Iterator[Entry]:
        """Entries in key order, of one namespace or all, with keys greater than `after`."""
        entries = self.entries
        for key in self._keys_in(namespace, after):
            yield entries[key]

    def _keys_in(self, namespace: str, after: str) -> Sequence[str]:
        keys = self._keys
        if not namespace and not after:
            return keys
        start = bisect_right(keys, after) if after else 0
        if not namespace:
            return keys[start:]
        # "0" follows "/" in ASCII: all keys of the namespace lie between.
        first = bisect_left(keys, f"{namespace}/")
        return keys[max(start, first) : bisect_left(keys, f"{namespace}0")]

    def events_since(self, revision: int) -> list[Event]:
        """The events after a revision that is not older than `window_start`."""
        if revision >= self.newest:
            return []
        start = bisect_right(self.window, revision, key=_revision_of)
        return [self.window[index] for index in range(start, len(self.window))]

    # -- indexes

    def indexed(self, field: str, value: str) -> Iterator[Entry]:
        """Entries by the exact value of a selectable field, in key order."""
        index = self._indexes.get(field)
        if index is None:
            index = self._indexes[field] = {}
            for entry in self.entries.values():
                index.setdefault(self._field(entry, field), set()).add(entry.key)
        for key in sorted(index.get(value, ())):
            yield self.entries[key]

    def _reindex(self, key: str, previous: Entry | None, current: Entry | None) -> None:
        for field, index in self._indexes.items():
            old = None if previous is None else self._field(previous, field)
            new = None if current is None else self._field(current, field)
            if old == new:
                continue
            if old is not None and (keys := index.get(old)) is not None:
                keys.discard(key)
                if not keys:
                    del index[old]
            if new is not None:
                index.setdefault(new, set()).add(key)

    def _field(self, entry: Entry, field: str) -> str:
        return entry.fields(self.dispatcher.fields_of).get(field, "")

    def check_invariants(self) -> None:
        assert self._keys == sorted(self.entries)
        revisions = [event.revision for event in self.window]
        assert revisions == sorted(set(revisions))
        assert all(revision > self.window_start for revision in revisions)
        for field, index in self._indexes.items():
            for value, keys in index.items():
                assert all(self._field(self.entries[key], field) == value for key in keys)


def _revision_of(event: Event) -> int:
    return event.revision


class Feed:
    """The one follower of the store, and the caches it feeds by key prefix."""

    def __init__(self, store: Store) -> None:
        self.store = store
        # "pods", "services/specs" → cache; a resource's keys begin with that and a slash.
        self._caches: dict[str, WatchCache] = {}
        # Changes that arrived for a cache while it is being filled.
        self._waiting: dict[str, list[Change]] = {}
        self._subscription: Subscription | None = None
        # Readers of a revision that has not been seen yet.
        self._readers: dict[asyncio.Future[None], int] = {}

    @property
    def revision(self) -> int:
        return self.store.revision

    @property
    def caches(self) -> Mapping[str, WatchCache]:
        return self._caches

    async def wait_for(self, revision: int) -> None:
        while self.revision < revision:
            seen = asyncio.get_running_loop().create_future()
            self._readers[seen] = revision
            try:
                await seen
            finally:
                self._readers.pop(seen, None)

    async def start(self, caches: Mapping[str, WatchCache]) -> None:
        """Fill the caches from one look at the store and follow it from there."""
        self._caches.update(caches)
        found: dict[str, list[KeyValue]] = {name: [] for name in caches}
        after, revision = "", None
        while True:
            page = await self.store.range(REGISTRY, after=after, limit=PAGE, revision=revision)
            for item in page.items:
                if (name := self._name_of(item.key)) is not None:
                    found[name].append(item)
            revision = page.revision
            if not page.remaining or not page.items:
                break
            after = page.items[-1].key
        for name, items in found.items():
            self._caches[name].load(items, revision)
        self._subscription = self.store.follow(REGISTRY, self._on_changes, since=revision)

    async def add(self, name: str, cache: WatchCache) -> None:
        """Start to feed one more resource: a kind that was defined just now."""
        self._waiting[name] = []
        self._caches[name] = cache
        try:
            page = await self.store.range(cache.prefix)
            cache.load(page.items, page.revision)
            for change in self._waiting[name]:
                if change.revision > page.revision:
                    cache.apply(change)
        finally:
            del self._waiting[name]

    def remove(self, name: str) -> None:
        if (cache := self._caches.pop(name, None)) is not None:
            cache.dispatcher.end_all()

    def stop(self) -> None:
        if self._subscription is not None:
            self._subscription.cancel()
            self._subscription = None
        for cache in self._caches.values():
            cache.dispatcher.end_all()

    def _name_of(self, key: str) -> str | None:
        # Most resources have one segment, some two; none is the first segment of another.
        end = key.find("/", len(REGISTRY))
        name = key[len(REGISTRY) : end]
        if name in self._caches:
            return name
        name = key[len(REGISTRY) : key.find("/", end + 1)]
        return name if name in self._caches else None

    def _on_changes(self, changes: Sequence[Change]) -> None:
        for change in changes:
            name = self._name_of(change.key)
            if name is None:
                continue
            if name in self._waiting:
                self._waiting[name].append(change)
            else:
                try:
                    self._caches[name].apply(change)
                except Exception:
                    # One bad change must not take those after it along.
                    log.exception("change not applied", extra={"key": change.key})
        for reader, revision in self._readers.items():
            if revision <= changes[-1].revision and not reader.done():
                reader.set_result(None)

"""Watches: one event in, the same bytes out to everybody who asked for them.

Watchers that ask for the same (selection and form) make up a `Group`; a group judges an
event once and encodes it once, and groups share encodings too. Groups are registered
under what can concern them (everything, a namespace, one key, one node's pods), so an
event reaches only groups that might want it.

What is promised, by etcd's words: Ordered, Unique, Atomic, Reliable, Resumable or an
explicit 410, Bookmarkable. A watcher that does not keep up is cut off, never waited
for: the client resumes where it was.

Seen through a selector, an object that begins to match is ADDED, one that ceases to is
DELETED, with its former content and the revision of the change.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from pybernetes.apimachinery.errors import Expired
from pybernetes.apiserver.watchcache import Event
from pybernetes.storage import Compacted, KeyValue, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pybernetes.apiserver.entry import Entry, FieldsOf
    from pybernetes.apiserver.selection import Selection
    from pybernetes.apiserver.watchcache import Feed, WatchCache
    from pybernetes.storage import Change

# A watcher with so many events unsent is cut off.
PENDING_LIMIT = 10_000

# Events and initial objects are sent in pieces of about this size if there are many.
CHUNK_BYTES = 64 * 1024

BOOKMARK_INTERVAL_SECONDS = 60.0
# A last bookmark goes out so long before the watch ends.
LAST_BOOKMARK_SECONDS = 2.0

_ADDED, _MODIFIED, _DELETED = "ADDED", "MODIFIED", "DELETED"
_OPENINGS = {
    kind: b'{"type":"%b","object":' % kind.encode()
    for kind in (_ADDED, _MODIFIED, _DELETED, "BOOKMARK", "ERROR")
}
_CLOSING = b"}\n"


class Form(Protocol):
    """How objects look to a client: whole, metadata only, or as rows of a table."""

    # Whether the first object a stream sends must be encoded with a header (tables).
    has_header: bool

    def object(self, entry: Entry, *, header: bool) -> bytes: ...

    def bookmark(self, revision: int, *, initial_events_end: bool) -> bytes: ...


def encode_event(kind: str, content: bytes) -> bytes:
    return b"".join((_OPENINGS[kind], content, _CLOSING))


@dataclass(frozen=True, slots=True)
class Judged:
    """An event as one group sees it."""

    kind: str
    entry: Entry


class Group:
    """Watchers who get the same bytes."""

    def __init__(self, selection: Selection, form: Form, fields_of: FieldsOf) -> None:
        self.selection = selection
        self.form = form
        self._fields_of = fields_of
        self._is_whole = selection.is_whole
        self._prefix = f"{selection.namespace}/" if selection.namespace else ""
        # Who is registered; a dict for its order.
        self.watchers: dict[Watcher, None] = {}

    def judge(self, event: Event) -> Judged | None:
        """What this event is to us; None if it is nothing."""
        entry, previous = event.entry, event.previous
        if self._prefix and not entry.key.startswith(self._prefix):
            return None
        if self._is_whole:
            if event.deleted:
                return Judged(_DELETED, entry)
            return Judged(_ADDED if previous is None else _MODIFIED, entry)
        matches, fields_of = self.selection.matches, self._fields_of
        before = previous is not None and matches(previous, fields_of)
        if not event.deleted and matches(entry, fields_of):
            return Judged(_MODIFIED if before else _ADDED, entry)
        if not before:
            return None
        assert previous is not None
        return Judged(_DELETED, entry if event.deleted else previous.at_revision(entry.revision))

    def frame(self, event: Event, judged: Judged, *, header: bool = False) -> bytes:
        # What a group sees of an event follows from its kind: the same key, the same bytes.
        key = (self.form, judged.kind, header)
        encoded = event.frames.get(key)
        if encoded is None:
            encoded = encode_event(judged.kind, self.form.object(judged.entry, header=header))
            event.frames[key] = encoded
        return encoded

    def publish(self, event: Event) -> None:
        judged = self.judge(event)
        if judged is None:
            return
        if not self.form.has_header:
            encoded = self.frame(event, judged)
            for watcher in self.watchers:
                watcher.push(encoded)
            return
        for watcher in self.watchers:
            watcher.push(self.frame(event, judged, header=watcher.take_header()))


class Dispatcher:
    """Finds the groups an event may concern."""

    def __init__(self, fields_of: FieldsOf) -> None:
        self.fields_of = fields_of
        # Where a selection listens (Selection.trigger) → its groups.
        self._groups: dict[tuple[str, str], dict[tuple[Selection, Form], Group]] = {}
        # How many triggers there are per field name, beyond key, name and namespace.
        self._fields: dict[str, int] = {}
        self._watchers = 0

    @property
    def watchers(self) -> int:
        return self._watchers

    def group_of(self, selection: Selection, form: Form) -> Group:
        groups = self._groups.get(selection.trigger, {})
        found = groups.get((selection, form))
        return found if found is not None else Group(selection, form, self.fields_of)

    def join(self, group: Group, watcher: Watcher) -> None:
        trigger = group.selection.trigger
        groups = self._groups.get(trigger)
        if groups is None:
            groups = self._groups[trigger] = {}
            if trigger[0] not in ("key", "name", "namespace"):
                self._fields[trigger[0]] = self._fields.get(trigger[0], 0) + 1
        # Two watchers may have asked for a group that was not registered yet.
        registered = groups.setdefault((group.selection, group.form), group)
        registered.watchers[watcher] = None
        self._watchers += 1

    def leave(self, group: Group, watcher: Watcher) -> None:
        trigger = group.selection.trigger
        groups = self._groups.get(trigger, {})
        registered = groups.get((group.selection, group.form))
        if registered is None or watcher not in registered.watchers:
            return
        del registered.watchers[watcher]
        self._watchers -= 1
        if registered.watchers:
            return
        del groups[(group.selection, group.form)]
        if not groups:
            del self._groups[trigger]
            if trigger[0] in self._fields:
                self._fields[trigger[0]] -= 1
                if not self._fields[trigger[0]]:
                    del self._fields[trigger[0]]

    def publish(self, event: Event) -> None:
        if not self._groups:
            return
        for trigger in self._triggers_of(event):
            for group in self._groups.get(trigger, _NO_GROUPS).values():
                group.publish(event)
        # The window keeps the event, but nobody will want these encodings again soon.
        event.frames.clear()

    def _triggers_of(self, event: Event) -> Iterator[tuple[str, str]]:
        entry, previous = event.entry, event.previous
        yield ("namespace", "")
        if namespace := entry.namespace:
            yield ("namespace", namespace)
        yield ("key", entry.key)
        yield ("name", entry.name)
        for field in self._fields:
            value = entry.fields(self.fields_of).get(field, "")
            yield (field, value)
            if previous is not None:
                former = previous.fields(self.fields_of).get(field, "")
                if former != value:
                    yield (field, former)

    def end_all(self) -> None:
        """End every watch: the resource goes, or the server does."""
        for groups in list(self._groups.values()):
            for group in list(groups.values()):
                for watcher in list(group.watchers):
                    watcher.end()


_NO_GROUPS: dict[tuple[Selection, Form], Group] = {}


class Watcher:
    """One client's watch: the async iterator that becomes the body of the answer.

    `since` None means: begin with the objects there are now.
    """

    def __init__(
        self,
        feed: Feed,
        cache: WatchCache,
        selection: Selection,
        form: Form,
        *,
        since: int | None,
        seconds: float,
        bookmarks: bool = False,
        mark_initial_end: bool = False,
    ) -> None:
        self._feed = feed
        self._cache = cache
        self._group = cache.dispatcher.group_of(selection, form)
        self._form = form
        self._bookmarks = bookmarks
        self._needs_header = form.has_header
        # Encoded events not taken yet, oldest first; bounded by PENDING_LIMIT.
        self._pending: deque[bytes] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._ended = False
        # Whether events reach us through the dispatcher; not while history is read.
        self._joined = False
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + seconds
        self._bookmark_due = False
        # The revision of the last bookmark; an equal one would tell nothing new.
        self._bookmarked = 0
        self._timer = self._loop.call_at(self._next_wake(), self._on_timer)
        self._backlog: AsyncGenerator[bytes, None] | Iterator[bytes] | None
        if since is None:
            entries = list(selection.select(cache))
            end = feed.revision if mark_initial_end else None
            self._backlog = self._initial(entries, end)
            self._join()
        elif since >= cache.window_start:
            events = cache.events_since(since)
            self._backlog = self._recent(events) if events else None
            self._join()
        else:
            self._backlog = self._history(since)

    # -- what the dispatcher calls

    def push(self, encoded: bytes) -> None:
        if len(self._pending) >= PENDING_LIMIT:
            self.end()
            return
        self._pending.append(encoded)
        self._wake()

    def take_header(self) -> bool:
        """Whether this event must carry the header: the first of a table does."""
        needed, self._needs_header = self._needs_header, False
        return needed

    def end(self) -> None:
        """Close the stream as soon as what is being sent is sent; the rest is dropped."""
        self._ended = True
        self._pending.clear()
        self._wake()

    # -- what the server calls

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            if self._backlog is not None:
                if chunk := await self._next_of_backlog():
                    return chunk
            elif self._pending:
                return self._take()
            elif self._bookmark_due:
                self._bookmark_due = False
                if chunk := self._bookmark():
                    return chunk
            elif self._loop.time() >= self._deadline:
                break
            else:
                await self._wait()
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._ended = True
        self._timer.cancel()
        self._cache.dispatcher.leave(self._group, self)
        if (backlog := self._backlog) is not None:
            self._backlog = None
            if isinstance(backlog, AsyncGenerator):
                await backlog.aclose()

    # -- the past

    async def _next_of_backlog(self) -> bytes:
        backlog = self._backlog
        assert backlog is not None
        if isinstance(backlog, AsyncGenerator):
            chunk = await anext(backlog, b"")
        else:
            chunk = next(backlog, b"")
            # A long list must not keep everybody else waiting.
            await asyncio.sleep(0)
        if not chunk:
            self._backlog = None
        return chunk

    def _initial(self, entries: list[Entry], end: int | None) -> Iterator[bytes]:
        # Events may be pushed before these are encoded; the header belongs to the first sent.
        header = bool(entries) and self.take_header()

        def frames() -> Iterator[bytes]:
            for index, entry in enumerate(entries):
                content = self._form.object(entry, header=header and index == 0)
                yield encode_event(_ADDED, content)
            if end is not None:
                self._bookmarked = end
                content = self._form.bookmark(end, initial_events_end=True)
                yield encode_event("BOOKMARK", content)

        return _in_chunks(frames())

    def _recent(self, events: list[Event]) -> Iterator[bytes]:
        # Encoded at once, for the same reason; the window is small.
        return _in_chunks(list(self._frames_of(events)))

    def _frames_of(self, events: Iterable[Event]) -> Iterator[bytes]:
        for event in events:
            if (judged := self._group.judge(event)) is not None:
                content = self._form.object(judged.entry, header=self.take_header())
                yield encode_event(judged.kind, content)

    async def _history(self, since: int) -> AsyncGenerator[bytes, None]:
        """From the store's history, until our window covers the rest."""
        cache, seen = self._cache, since
        try:
            async with self._feed.store.watch(cache.prefix, since=since) as batches:
                while seen < cache.window_start:
                    async with asyncio.timeout_at(self._deadline):
                        changes = await anext(batches)
                    for chunk in _in_chunks(self._frames_of(self._events_of(changes))):
                        yield chunk
                    seen = changes[-1].revision
        except Compacted as error:
            status = expired(since, error.oldest - 1).status()
            yield encode_event("ERROR", msgspec.json.encode(status))
            self._deadline = 0.0
            return
        except (TimeoutError, StoreError):
            self._deadline = 0.0
            return
        # Between looking at the window and joining nobody else runs: nothing falls in between.
        self._pending.extend(self._frames_of(cache.events_since(seen)))
        self._join()

    def _events_of(self, changes: Sequence[Change]) -> Iterator[Event]:
        """The store's changes as events; states before them are not in the cache any more."""
        shape_of = self._cache.entry_of
        for change in changes:
            previous = None
            if change.previous is not None:
                # Its own revision is unknown, and never shown: only its content is looked at.
                previous = shape_of(KeyValue(change.key, change.previous, change.revision, 0))
            if change.value is not None:
                entry = shape_of(KeyValue(change.key, change.value, change.revision, 0))
                if entry is not None:
                    yield Event(entry, previous, False)
            elif previous is not None:
                yield Event(previous, previous, True)

    # -- the present

    def _join(self) -> None:
        self._cache.dispatcher.join(self._group, self)
        self._joined = True

    def _take(self) -> bytes:
        pending = self._pending
        if len(pending) == 1:
            return pending.popleft()
        parts, size = [], 0
        while pending and size < CHUNK_BYTES:
            parts.append(pending.popleft())
            size += len(parts[-1])
        return b"".join(parts)

    def _bookmark(self) -> bytes:
        # Nothing is pending, so everything up to the feed's revision has been sent.
        revision = self._feed.revision
        if revision <= self._bookmarked or not self._joined:
            return b""
        self._bookmarked = revision
        content = self._form.bookmark(revision, initial_events_end=False)
        return encode_event("BOOKMARK", content)

    async def _wait(self) -> None:
        self._waiting = self._loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _wake(self) -> None:
        if (waiting := self._waiting) is not None and not waiting.done():
            waiting.set_result(None)

    def _on_timer(self) -> None:
        self._bookmark_due = self._bookmarks and self._loop.time() < self._deadline
        if not self._ended and self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._next_wake(), self._on_timer)
        self._wake()

    def _next_wake(self) -> float:
        if not self._bookmarks:
            return self._deadline
        now = self._loop.time()
        last = self._deadline - LAST_BOOKMARK_SECONDS
        due = now + BOOKMARK_INTERVAL_SECONDS
        return min(due, last) if now < last else self._deadline


def expired(revision: int, oldest: int) -> Expired:
    return Expired(f"too old resource version: {revision} ({oldest})")


def _in_chunks(frames: Iterable[bytes]) -> Iterator[bytes]:
    parts: list[bytes] = []
    size = 0
    for frame in frames:
        parts.append(frame)
        size += len(frame)
        if size >= CHUNK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)

"""The contract of a store: what every backend promises, in values and errors.

A store is a map from keys to bytes with one global, strictly increasing
revision, after the model of etcd. Every write takes the next revision; the
revision of a key's last write is what Kubernetes calls its resourceVersion. An empty
store is at revision 1, since 0 has a meaning of its own in the API.

The promises, each tested by `pybernetes.testing.store_contract` on every backend:

Ordered     changes are delivered in the order of their revisions;
Unique      no change is delivered twice to one watcher;
Atomic      the changes of one revision are delivered together;
Reliable    no change between two delivered ones is left out, but for relaxed
            overwrites: of those, a backend may keep only the last before a commit
            for readers who come for them later;
Resumable   a watch may start at any revision still in the history, or is told
            `Compacted`, after which the reader lists again.

Visible means durable: what a reader or a watcher has seen of a `DURABLE` write
survives a crash of the process and of the machine. A revision never repeats and
never goes back, not even when `RELAXED` writes are lost in a crash; a reader who
saw lost writes is told `Compacted` when it tries to resume from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager


class Durability(Enum):
    """When a write is acknowledged.

    DURABLE: when it is on the disk.
    RELAXED: at once; it reaches the disk with the next durable write or after a
    while, and is lost if the machine or the process dies before. For leases,
    events and heartbeats, which are worth less than the write they would cost.
    """

    DURABLE = "durable"
    RELAXED = "relaxed"


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key's value: `revision` wrote it, `created` is the first revision of this life."""

    key: str
    value: bytes
    revision: int
    created: int


@dataclass(frozen=True, slots=True)
class Change:
    """One write. `value` is None for a deletion; `created` says the key was absent before.

    `previous` is the value that was replaced. It is None for a creation, and also
    when the history no longer holds it (after a restart, for relaxed writes that
    were coalesced on disk), so readers must bear a deletion without it.
    """

    key: str
    value: bytes | None
    previous: bytes | None
    revision: int
    created: bool


@dataclass(frozen=True, slots=True)
class Range:
    """One page of a range: `items` in key order, as of `revision`; `remaining` follow."""

    items: Sequence[KeyValue]
    revision: int
    remaining: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something the store met and went around; `key` is empty when it is not known."""

    key: str
    revision: int
    message: str


class StoreError(Exception):
    """Everything a store raises on purpose."""


class RevisionMismatch(StoreError):
    """A conditional write found another revision; `current` is what it found."""

    def __init__(self, key: str, wanted: int, current: KeyValue | None) -> None:
        found = "nothing" if current is None else f"revision {current.revision}"
        wanted_text = "nothing" if wanted == 0 else f"revision {wanted}"
        super().__init__(f"{key}: expected {wanted_text}, found {found}")
        self.key = key
        self.wanted = wanted
        self.current = current


class KeyNotFound(StoreError):
    """The key to delete is not there."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} does not exist")
        self.key = key


class Compacted(StoreError):
    """The history no longer reaches back to `revision`; it can be read from `oldest` on."""

    def __init__(self, revision: int, oldest: int) -> None:
        super().__init__(
            f"revision {revision} is no longer in the history, which starts at {oldest}"
        )
        self.revision = revision
        self.oldest = oldest


class FutureRevision(StoreError):
    """A read asked for a revision that has not happened yet."""

    def __init__(self, revision: int, newest: int) -> None:
        super().__init__(f"revision {revision} is in the future, the newest is {newest}")
        self.revision = revision
        self.newest = newest


class StoreClosed(StoreError):
    """The store has been closed."""


class StoreFailed(StoreError):
    """The store cannot do this now: disk full, I/O error, unusable or locked file.

    A write that fails so was not applied and is not visible; after a crash at
    this very moment it may turn out to have happened.
    """


class Unreadable(StoreError):
    """The key exists, but what the disk holds of it is damaged. Writing it anew mends it.

    Not `None`: who concludes from an owner's absence that its dependents may go must
    not be led there by a bad sector. Ranges leave such keys out; `problems` lists them.
    """

    def __init__(self, key: str, revision: int) -> None:
        super().__init__(f"{key}: what was stored at revision {revision} cannot be read")
        self.key = key
        self.revision = revision


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures for metrics. What a backend does not have is zero."""

    keys: int
    revision: int
    compacted: int
    # Bytes of current values, and of the past that is held in memory.
    live_bytes: int
    window_bytes: int
    # Relaxed writes that the disk has not seen.
    backlog_rows: int = 0
    commits: int = 0
    failed_commits: int = 0
    rows_written: int = 0
    commit_seconds: float = 0.0


class Subscription(Protocol):
    """A running `follow`."""

    def cancel(self) -> None:
        """Stop calling back. May be called twice, and from within the callback."""
        ...


class Store(Protocol):
    """What every backend does. One event loop owns a store; it is not thread-safe.

    Writes are decided in the order of the calls. A cancelled write may or may not
    have happened. All methods raise `StoreClosed` after `close`.
    """

    @property
    def revision(self) -> int:
        """The newest revision visible to readers; all callbacks have been told of it."""
        ...

    async def get(self, key: str, *, revision: int | None = None) -> KeyValue | None:
        """The key now, or as it was at `revision`.

        Raises `Unreadable`; for the past `Compacted` and `FutureRevision`.
        """
        ...

    async def range(
        self, prefix: str, *, after: str = "", limit: int = 0, revision: int | None = None
    ) -> Range:
        """The keys that begin with `prefix` and are greater than `after`, in order.

        Zero means no limit. To page, repeat with `after` the last key seen and
        `revision` that of the first page.
        """
        ...

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        if_revision: int | None = None,
        durability: Durability = Durability.DURABLE,
    ) -> KeyValue:
        """Write the key, if its revision is `if_revision` (0: if it does not exist).

        Raises `RevisionMismatch` and `StoreFailed`.
        """
        ...

    async def delete(
        self,
        key: str,
        *,
        if_revision: int | None = None,
        durability: Durability = Durability.DURABLE,
    ) -> KeyValue:
        """Delete the key; returns the last value, with the revision of the deletion.

        Raises `KeyNotFound`, `RevisionMismatch` and `StoreFailed`.
        """
        ...

    def watch(
        self, prefix: str, *, since: int
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Change]]]:
        """Every change below `prefix` with a revision greater than `since`, in batches.

        `Compacted` is raised on entering, or later by the iterator when a slow
        reader is overtaken by compaction: a watch holds a position in the
        history, not a queue, so a slow one costs no memory.
        """
        ...

    def follow(
        self, prefix: str, callback: Callable[[Sequence[Change]], None], *, since: int
    ) -> Subscription:
        """The same as calls, made on the event loop before a write is acknowledged.

        For readers that have just listed: `since` must be recent enough to be in
        memory, else `Compacted`. The callback must neither wait nor write; what
        it raises is logged and otherwise ignored.
        """
        ...

    async def compact(self, revision: int) -> None:
        """Forget the history before `revision`, which itself stays readable."""
        ...

    def problems(self) -> Sequence[Problem]:
        """What is wrong at the moment: unreadable objects, a disk that fails."""
        ...

    def statistics(self) -> Statistics:
        """How much there is of what."""
        ...

    def check_invariants(self) -> None:
        """Raise AssertionError if the store contradicts itself. For tests; takes its time."""
        ...

    async def close(self) -> None:
        """Write out what waits, end the watches, let go of files. May be called twice."""
        ...

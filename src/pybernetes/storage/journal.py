"""What the durable store asks of a file: values that cross to the writer thread and back.

A `Journal` is an append-only list of rows, one for each change, keyed by revision.
A row names the row it replaced, so the live rows are those that no other row
replaced and that are not deletions, and the state at any past revision follows
from the rows after it.

Rule: after every commit a journal holds the exact state of the store at one
revision, the newest it has a row for. Rows of relaxed writes may be coalesced, but
they are never overtaken: a commit carries everything that came before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from array import array
    from collections.abc import Sequence
    from pathlib import Path

    from pybernetes.storage.ledger import Gap
    from pybernetes.storage.store import Change, KeyValue, Problem


@dataclass(frozen=True, slots=True)
class Row:
    """One change. `previous` is the revision of the row it replaces (0: none).

    `value` is None for a deletion. A row begins a life of its key if `created` is
    greater than `previous`.
    """

    revision: int
    key: str
    previous: int
    created: int
    at_ms: int
    value: bytes | None
    relaxed: bool = False


@dataclass(frozen=True, slots=True)
class Commit:
    """What goes to the disk in one transaction. `None` means: leave as it is."""

    rows: Sequence[Row]
    # Revisions up to this one may be handed out before the next commit.
    reserved: int | None = None
    # The revisions of all live rows after this commit, and the newest revision.
    live: tuple[array[int], int] | None = None
    # The last commit of an orderly close: nothing was handed out beyond `reserved`.
    clean: bool = False


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What the journal may do when nobody waits: trim history and check-point."""

    # Rows replaced before this moment may go.
    expired_before_ms: int
    # Replaced rows may take this many bytes.
    max_history_bytes: int
    # What the live rows take, about.
    live_bytes: int


@dataclass(frozen=True, slots=True)
class UpkeepDone:
    """`floor`: the oldest readable revision. `wants_live`: to go on, the next commit must
    carry the live revisions. `again`: there is more to do."""

    floor: int
    wants_live: bool = False
    again: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """What a journal held when it was opened."""

    items: Sequence[KeyValue]
    # The newest revision that may have been handed out before.
    revision: int
    reserved: int
    floor: int
    gaps: tuple[Gap, ...]
    problems: Sequence[Problem] = ()
    # The revisions of live rows that could not be read, and their keys where known.
    damaged: dict[int, str] = field(default_factory=dict)


class Journal(Protocol):
    """A file of rows. Every method is called on the writer thread, one at a time.

    All raise `StoreFailed` when the disk does, after which nothing has changed.
    """

    def open(self) -> Opened: ...

    def commit(self, commit: Commit) -> bool:
        """Make it durable. Returns whether upkeep would be welcome."""
        ...

    def upkeep(self, upkeep: Upkeep) -> UpkeepDone: ...

    def trim(self, revision: int) -> UpkeepDone:
        """A step towards forgetting the history before `revision`."""
        ...

    def changes(self, prefix: str, since: int, until: int) -> tuple[list[Change], int]:
        """Some changes after `since` up to `until`; the revision up to which they are all."""
        ...

    def replaced(self, prefix: str, since: int, until: int) -> tuple[dict[str, int], int]:
        """Keys changed after `since` and the row that their first change replaced (0: none).

        Goes a limited way towards `until`; also returns how far.
        """
        ...

    def read(self, revisions: Sequence[int]) -> list[KeyValue]:
        """The rows with these revisions; unreadable ones are left out."""
        ...

    def backup(self, path: Path) -> None:
        """Copy the whole file, as it is now, to `path`."""
        ...

    def size_bytes(self) -> int: ...

    def close(self) -> None: ...

"""A batch: the writes that share one commit, decided in order, and what each is told.

Rule: a write is decided against the visible state with all earlier writes of its
batch laid over it. What such a decision rests on may still fail, but only together
with the decision; so a refusal that rests on the batch waits for the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pybernetes.storage.ledger import Entry, Write
from pybernetes.storage.store import Durability, KeyNotFound, KeyValue, RevisionMismatch, StoreError

if TYPE_CHECKING:
    import asyncio
    from collections import deque
    from collections.abc import Callable

    from pybernetes.storage.backlog import Backlog

# A batch takes no more writes than this, and no more once it has so many bytes.
BATCH_WRITES = 512
BATCH_BYTES = 8 * 1024 * 1024


@dataclass(eq=False, slots=True)
class Pending:
    """A write that waits for its turn. Its future is done early if the writer gave up."""

    write: Write
    durability: Durability
    future: asyncio.Future[KeyValue]


# Who is told what when the batch is on the disk.
Outcomes = list[tuple[Pending, Entry | StoreError]]


@dataclass(eq=False, slots=True)
class Batch:
    """One commit under way."""

    # Visible already, but not on the disk.
    flushing: Backlog
    # On the disk and visible only if the commit succeeds.
    entries: list[Entry] = field(default_factory=list)
    outcomes: Outcomes = field(default_factory=list)
    reserved: int | None = None
    with_live: bool = False
    clean: bool = False
    bytes: int = 0
    started: float = 0.0

    def relaxed_revisions(self) -> set[int]:
        """Which of `entries` would not have needed the disk."""
        return {
            outcome.revision
            for pending, outcome in self.outcomes
            if isinstance(outcome, Entry) and pending.durability is Durability.RELAXED
        }


def decide_queue(
    queue: deque[Pending],
    current_of: Callable[[str], KeyValue | None],
    decide: Callable[[Write, KeyValue | None], Entry],
) -> tuple[list[Entry], Outcomes]:
    """Take writes from the queue and decide them, up to a batch full.

    Refusals that rest on nothing but the visible state are told at once.
    """
    entries: list[Entry] = []
    outcomes: Outcomes = []
    # The keys this batch has changed, as they will be.
    changed: dict[str, KeyValue | None] = {}
    size = 0
    while queue and len(entries) < BATCH_WRITES and size < BATCH_BYTES:
        pending = queue.popleft()
        if pending.future.done():
            continue
        key = pending.write.key
        current = changed[key] if key in changed else current_of(key)
        try:
            entry = decide(pending.write, current)
        except (RevisionMismatch, KeyNotFound) as error:
            if key in changed:
                outcomes.append((pending, error))
            else:
                pending.future.set_exception(error)
            continue
        entries.append(entry)
        outcomes.append((pending, entry))
        changed[key] = entry.after
        size += len(pending.write.value or b"")
    return entries, outcomes

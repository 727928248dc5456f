"""Reading the past that only the journal remembers, and joining it to what is in memory.

Both jobs go back to the disk in steps, so that commits get between them, while the
ledger moves on. The rule: what is known up to the start of the ledger's window, at
a moment when nothing is awaited, can be joined to the window without a gap.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from pybernetes.storage.store import Change, Compacted, KeyValue, StoreFailed

if TYPE_CHECKING:
    from pybernetes.storage.journal import Journal
    from pybernetes.storage.ledger import Ledger
    from pybernetes.storage.writerthread import WriterThread

log = logging.getLogger(__name__)


class PastReader:
    """What happened before the ledger's window."""

    def __init__(self, ledger: Ledger, journal: Journal, thread: WriterThread) -> None:
        self._ledger = ledger
        self._journal = journal
        self._thread = thread

    async def undone(self, prefix: str, after: str, revision: int) -> dict[str, KeyValue | None]:
        """The keys in the range that have changed since `revision`, as they were then.

        Right until the next `await` of the caller. Raises `Compacted`.
        """
        # The row that was live at `revision`, by key; 0 if there was none.
        replaced: dict[str, int] = {}
        values: dict[int, KeyValue] = {}
        done = revision
        while done < self._ledger.window_start:
            since, until = done, self._ledger.window_start
            while since < until:
                step = partial(self._journal.replaced, prefix, since, until)
                found, since = await self._thread.submit(step)
                for key, row in found.items():
                    replaced.setdefault(key, row)
            done = until
            missing = [row for row in replaced.values() if row and row not in values]
            read = await self._thread.submit(partial(self._journal.read, missing))
            values.update((item.revision, item) for item in read)
        self._ledger.check_readable(revision)
        past = self._ledger.undone(prefix, after, done)
        for key, row in replaced.items():
            if key > after:
                past[key] = values.get(row)
        return past

    async def changes(self, prefix: str, since: int) -> tuple[list[Change], int]:
        """Some changes after `since`, and the revision up to which they are all."""
        until = self._ledger.window_start
        try:
            return await self._thread.submit(partial(self._journal.changes, prefix, since, until))
        except StoreFailed as error:
            # A past that cannot be read is no different from one that is gone.
            log.error("the history after revision %d cannot be read: %s", since, error)
            raise Compacted(since, until) from error

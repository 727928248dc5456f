"""The backlog: rows of relaxed writes that have not reached the disk yet.

An overwrite replaces the row it overwrites, so a lease renewed a hundred times
between two commits is written once. Beginnings and ends of lives are kept apart:
a watcher that resumes after a restart must not miss that a key was gone.

Rule: rows are in revision order, and `previous` of each names a row on the disk,
or one before it in the backlog, or none.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pybernetes.storage.journal import Row

# What a row costs in memory beyond its value.
ROW_BYTES = 300


class Backlog:
    """Rows waiting for the disk; `due` is the loop time by which they should be there."""

    def __init__(self, rows: Iterable[Row] = (), due: float = math.inf) -> None:
        # Rows by revision, in that order.
        self._rows: dict[int, Row] = {}
        self.bytes = 0
        self.due = due
        for row in rows:
            self.add(row, due)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def is_due(self, now: float) -> bool:
        return bool(self._rows) and self.due <= now

    def add(self, row: Row, due: float = math.inf) -> None:
        """Take a row that is newer than all others; relaxed rows it overwrites go."""
        older = self._rows.get(row.previous)
        if older is not None and _is_superseded(older, row):
            del self._rows[older.revision]
            self.bytes -= _size_of(older)
            row = replace(row, previous=older.previous)
        self._rows[row.revision] = row
        self.bytes += _size_of(row)
        self.due = min(self.due, due)

    def check_invariants(self) -> None:
        assert self.bytes == sum(_size_of(row) for row in self)
        last = 0
        for revision, row in self._rows.items():
            assert last < revision == row.revision
            assert row.previous < revision
            last = revision


def _is_superseded(older: Row, newer: Row) -> bool:
    """Whether the history can do without `older` once it has `newer`."""
    if not older.relaxed:
        return False
    # The deletion of a key that the disk never saw still has to say which key it was,
    # and a watcher that saw the creation has to be told: both rows stay.
    is_first = older.created > older.previous
    return newer.value is not None or not is_first


def _size_of(row: Row) -> int:
    return ROW_BYTES + (0 if row.value is None else len(row.value))

"""A revisioned key-value store with the semantics of etcd.

`Store` is the interface and `docs/storage.md` the manual. `MemoryStore` is for
tests and simulation, `SqliteStore` for clusters that shall survive. Only the API server, the composition root and the test kit
may import this package; everybody else talks to the API.
"""

from __future__ import annotations

from pybernetes.storage.durable import DurableOptions
from pybernetes.storage.ledger import HistoryLimits
from pybernetes.storage.memory import MemoryStore
from pybernetes.storage.sqlite import SqliteStore
from pybernetes.storage.store import (
    Change,
    Compacted,
    Durability,
    FutureRevision,
    KeyNotFound,
    KeyValue,
    Problem,
    Range,
    RevisionMismatch,
    Statistics,
    Store,
    StoreClosed,
    StoreError,
    StoreFailed,
    Subscription,
    Unreadable,
)

__all__ = [
    "Change",
    "Compacted",
    "Durability",
    "DurableOptions",
    "FutureRevision",
    "HistoryLimits",
    "KeyNotFound",
    "KeyValue",
    "MemoryStore",
    "Problem",
    "Range",
    "RevisionMismatch",
    "SqliteStore",
    "Statistics",
    "Store",
    "StoreClosed",
    "StoreError",
    "StoreFailed",
    "Subscription",
    "Unreadable",
]

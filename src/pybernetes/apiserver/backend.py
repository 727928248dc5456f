"""What every verb works with: the catalog, the store behind it, time, chance and policy."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pybernetes.apimachinery.errors import Timeout
from pybernetes.apiserver.hooks import AllowAll, NoAdmission

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Catalog, Served
    from pybernetes.apiserver.hooks import Admission, Authorizer, Connect, FieldManager
    from pybernetes.apiserver.watchcache import Feed
    from pybernetes.storage import Store

# How long a read waits for a revision that this server has not seen yet.
FRESHNESS_SECONDS = 3.0


class NoFieldManager:
    """Keeps no managedFields: what clients send of them is dropped."""

    def created(self, call: Call, served: Served, obj: Any) -> Any:
        return _without_managed_fields(obj)

    def updated(self, call: Call, served: Served, old: Any, new: Any) -> Any:
        return _without_managed_fields(new)


def _without_managed_fields(obj: Any) -> Any:
    from msgspec.structs import replace

    if not obj.metadata.managed_fields:
        return obj
    return replace(obj, metadata=replace(obj.metadata, managed_fields=()))


class Turns:
    """Lets those who write the same object after a lost race go one after the other."""

    def __init__(self) -> None:
        # Locks by key, each with the number of those who hold it or wait for it.
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(key) or (asyncio.Lock(), 0)
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, users - 1)


@dataclass(slots=True)
class Backend:
    catalog: Catalog
    feed: Feed
    clock: Clock
    random: Random
    # Asked by verbs that do more than their name says: a PUT that creates.
    authorizer: Authorizer = field(default_factory=AllowAll)
    admission: Admission = field(default_factory=NoAdmission)
    field_manager: FieldManager = field(default_factory=NoFieldManager)
    turns: Turns = field(default_factory=Turns)
    # (group, resource, subresource) → who answers; see hooks.Connect.
    connects: dict[tuple[str, str, str], Connect] = field(default_factory=dict)
    # What is to be closed when the server stops: connections to webhooks.
    closers: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return self.feed.store

    async def wait_for(self, revision: int) -> None:
        """Return once the caches show `revision`. Raises Timeout, as upstream, if they do not."""
        if self.feed.revision >= revision:
            return
        try:
            async with asyncio.timeout(FRESHNESS_SECONDS):
                await self.feed.wait_for(revision)
        except TimeoutError:
            raise too_large_revision(revision, self.feed.revision) from None


def too_large_revision(wanted: int, current: int) -> Timeout:
    error = Timeout(
        f"Too large resource version: {wanted}, current: {current}", retry_after_seconds=1
    )
    assert error.details is not None
    error.details["causes"] = [
        {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    ]
    return error
